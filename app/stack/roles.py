"""The processes of a stack and how each is started: the one table behind supervisor, Procfile and compose file."""

from __future__ import annotations

import signal
from dataclasses import dataclass

SUPERVISOR = "supervisor"
#: Writes what supervisor reports into the history.
LISTENER = "listener"
POSTGRES = "postgres"
REDIS = "redis"
#: What engines and their shims are called in `hostler status`.
ENGINE = "engine"
SHIM = "shim"
#: The name supervisor gives all of ``ROLES`` together: started and stopped as one, before the parts they need.
GROUP = "roles"


@dataclass(frozen=True)
class Role:
    """One process. ``arguments`` follow ``python``; ``stop_wait_s`` is its time to end before it is killed."""

    name: str
    arguments: tuple[str, ...]
    stop_wait_s: int
    stop_signal: signal.Signals = signal.SIGTERM
    #: stopped after the others, so that what they answer last still gets out
    is_door: bool = False
    #: runs also where engines are and nothing else of the stack is (`hostler worker`)
    with_engines: bool = False

    @property
    def command(self) -> str:
        """As the Procfile has it."""
        return " ".join(("python", *self.arguments))


ROLES: tuple[Role, ...] = (
    Role("web", ("-m", "gunicorn", "-c", "python:app.stack.gunicorn_conf"), 20),
    # a launch under way is finished; what a killed worker left is adopted
    Role("worker", ("-m", "workers.run", "worker"), 40, with_engines=True),
    Role("worker-control", ("-m", "workers.run", "worker-control"), 40, with_engines=True),
    Role("beat", ("-m", "workers.run", "beat"), 10),
    # it keeps nothing, and its threads would not let it end
    Role("flower", ("-m", "workers.run", "flower"), 1, signal.SIGKILL),
    Role("agent", ("-m", "workers.agent"), 15, with_engines=True),
    # its ssh processes go with it; an agent, too, probes through tunnels of its own host
    Role("tunnels", ("-m", "workers.tunnels"), 10, with_engines=True),
    Role("gateway-agent", ("-m", "app.gateway.agent"), 10),
    # what it streams may end, but not for ever
    Role("slow-lane", ("-m", "gunicorn", "-c", "python:app.gateway.slow_lane.gunicorn_conf"), 5),
    # it becomes HAProxy: nobody new comes in, who is inside may end
    Role("gateway", ("-m", "app.gateway.proxy"), 5, signal.SIGUSR1, is_door=True),
)

#: What `hostler up` and `hostler worker` run: the names under which a start is recorded.
STACK, WORKER_HOST = "stack", "worker host"


def roles_of(kind: str) -> tuple[Role, ...]:
    """The processes of a whole stack, or of a host that only runs engines."""
    return ROLES if kind == STACK else tuple(role for role in ROLES if role.with_engines)
