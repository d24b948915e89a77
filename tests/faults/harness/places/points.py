"""Failpoints at the steps of other places; a set of its own, so that a new one draws no other point anew."""

from __future__ import annotations

from tests.faults.harness.failpoints import Point, around

_WORK = ("worker",)
_LOOK = ("agent", "worker", "worker-control")
_END = ("worker-control", "agent")
_TUNNELS = ("tunnels",)
_COPY = ("agent",)


def _backend(name: str, cls: str) -> tuple[Point, ...]:
    target = f"workers.backends.{name}:{cls}"
    return (
        *around(f"{name}.adopt", f"{target}.adopt", _WORK),
        *around(f"{name}.launch", f"{target}.launch", _WORK),
        *around(f"{name}.inspect", f"{target}.inspect", _LOOK),
        *around(f"{name}.stop", f"{target}.stop", _END),
    )


PLACE_POINTS: dict[str, Point] = {
    point.name: point
    for point in (
        *_backend("slurm", "SlurmBackend"),
        *_backend("ssh", "SshBackend"),
        *_backend("docker", "DockerBackend"),
        # a command on another host: the connection is made, the command given
        *around("transport.run", "workers.transports.ssh:SshTransport.run", _LOOK),
        *around("transport.connect", "workers.transports.master:Master.ensure", _LOOK),
        # tunnels: a port is leased, the forward opened, what is so written down, what is gone forgotten
        *around("tunnel.lease", "app.usecases.tunnels:lease_end", _TUNNELS),
        *around("tunnel.record", "app.usecases.tunnels:record", _TUNNELS),
        *around("tunnel.forget", "app.usecases.tunnels:forget", _TUNNELS),
        *around("tunnel.forward", "workers.tunnels.connection:Connection.forward", _TUNNELS),
    )
}

#: What runs in which pool makes somebody come by, by the first word of a point's name.
POOL_OF = {"slurm": "queue", "ssh": "far", "docker": "pod", "transport": "login", "tunnel": "tunnelled"}
