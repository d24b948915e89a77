"""Where everything of one stack lies. Paths only: nothing here starts or stops anything."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from app.stack.errors import BadState, PathTooLong

#: Linux allows 107 bytes; the rest is room for temporary names that libraries add.
SOCKET_PATH_BYTES = 90
POSTGRES_PORT = 5432
POSTGRES_SOCKET = f".s.PGSQL.{POSTGRES_PORT}"
REDIS_SOCKET = "redis.sock"
#: supervisord binds ``<name>.<pid>`` first and renames it
SUPERVISOR_SOCKET = "supervisor.sock"
#: The control API and Flower, which only the gateway asks.
WEB_SOCKET = "web.sock"
FLOWER_SOCKET = "flower.sock"
#: What HAProxy listens on beside the public port: commands to the worker, commands to the master, the doors inside.
HAPROXY_SOCKET = "haproxy.sock"
MASTER_SOCKET = "haproxy-master.sock"
INSIDE_SOCKET = "door.sock"
RELAY_SOCKET = "relay.sock"
SLOW_LANE_SOCKET = "slow-lane.sock"
#: Every socket name a part makes in the run dir; the longest decides whether ``<state>/run`` will do.
SOCKET_NAMES = (
    POSTGRES_SOCKET,
    REDIS_SOCKET,
    f"{SUPERVISOR_SOCKET}.4194304",
    WEB_SOCKET,
    FLOWER_SOCKET,
    SLOW_LANE_SOCKET,
    # HAProxy binds ``<name>.<pid>.tmp`` first too
    *(f"{name}.4194304.tmp" for name in (HAPROXY_SOCKET, MASTER_SOCKET, INSIDE_SOCKET, RELAY_SOCKET)),
)
#: Postgres cuts its own paths at 1,024 bytes.
STATE_PATH_BYTES = 900


@dataclass(frozen=True)
class Layout:
    """The paths below one state dir. ``run`` and ``postgres`` may be links to a place elsewhere."""

    state_dir: Path

    @property
    def secrets(self) -> Path:
        return self.state_dir / "secrets"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    @property
    def data(self) -> Path:
        """What stores keep on this host, a folder for each service or single replica."""
        return self.state_dir / "data"

    @property
    def attempts(self) -> Path:
        return self.state_dir / "attempts"

    @property
    def containers(self) -> Path:
        """Folders of the attempts that run in containers."""
        return self.state_dir / "containers"

    @property
    def models(self) -> Path:
        return self.state_dir / "models"

    @property
    def recipes(self) -> Path:
        """The operator's recipes, unless a setting names another folder."""
        return self.state_dir / "recipes"

    @property
    def recipe_secrets(self) -> Path:
        """Files that recipes name as secrets; never the stack's own."""
        return self.state_dir / "recipe-secrets"

    @property
    def redis(self) -> Path:
        return self.state_dir / "redis"

    @property
    def record(self) -> Path:
        """``stack.json``: what runs now or ran last."""
        return self.state_dir / "stack.json"

    @property
    def lock(self) -> Path:
        return self.state_dir / "lock"

    @property
    def supervisor_config(self) -> Path:
        return self.state_dir / "supervisor.conf"

    @property
    def run(self) -> Path:
        return run_dir(self.state_dir)

    @property
    def redis_socket(self) -> Path:
        return self.run / REDIS_SOCKET

    @property
    def supervisor_socket(self) -> Path:
        return self.run / SUPERVISOR_SOCKET

    @property
    def gateway(self) -> Path:
        """The gateway's configuration, maps and access log (see ``app.gateway.places``)."""
        return self.state_dir / "gateway"

    @property
    def route_table(self) -> Path:
        """What the gateway's agent routes where, for who has no database."""
        return self.gateway / "table.json"

    @property
    def web_socket(self) -> Path:
        return self.run / WEB_SOCKET

    @property
    def flower_socket(self) -> Path:
        return self.run / FLOWER_SOCKET

    @property
    def slow_lane_socket(self) -> Path:
        return self.run / SLOW_LANE_SOCKET

    @property
    def haproxy_socket(self) -> Path:
        """HAProxy's runtime socket."""
        return self.run / HAPROXY_SOCKET

    @property
    def master_socket(self) -> Path:
        """The socket of HAProxy's master process."""
        return self.run / MASTER_SOCKET

    @property
    def inside_socket(self) -> Path:
        """The door for our own processes."""
        return self.run / INSIDE_SOCKET

    @property
    def relay_socket(self) -> Path:
        return self.run / RELAY_SOCKET

    @property
    def left_behind(self) -> dict[str, tuple[Path, ...]]:
        """By role: sockets that their processes leave when they end, or are killed."""
        return {
            "web": (self.web_socket,),
            "flower": (self.flower_socket,),
            "slow-lane": (self.slow_lane_socket,),
            "gateway": (self.haproxy_socket, self.master_socket, self.inside_socket, self.relay_socket),
            # of connections to other hosts, with what is known of hosts that do not answer
            "ssh": tuple(self.run.glob("ssh-*")),
        }

    @property
    def postgres(self) -> Path:
        """The folder of Postgres, links resolved (see ``app.stack.places``)."""
        home = self.state_dir / "postgres"
        return Path(os.path.realpath(home)) if home.is_symlink() else home

    @property
    def postgres_data(self) -> Path:
        return self.postgres / "data"

    @property
    def postgres_sockets(self) -> Path:
        """The run dir, or a folder of Postgres's own when its user cannot reach the state dir."""
        return self.postgres / "run" if (self.state_dir / "postgres").is_symlink() else self.run


def run_dir(state_dir: Path) -> Path:
    """The folder of the sockets: ``<state>/run``, or what it links to, or where it will be (links resolved).

    A state dir whose path is too long for sockets gets a short folder: ``$XDG_RUNTIME_DIR/hostler-<hash>``, else
    one of our own. ``make_run_dir`` records the choice as a link, because ``down`` may run in another environment.
    """
    inside = state_dir / "run"
    if inside.is_symlink():
        return Path(os.readlink(inside))
    return inside if _fits(inside) else _short_dir(state_dir)


def make_run_dir(state_dir: Path, uid: int, gid: int) -> Path:
    """Make the run dir (0700, owned by ``uid``) and return it. Raises BadState when another user holds its name."""
    folder = run_dir(state_dir)
    inside = state_dir / "run"
    if not _fits(folder):
        raise PathTooLong(f"{folder} is too long for a socket; set XDG_RUNTIME_DIR to a short path and try again")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = os.lstat(folder)
    # the short folder may lie in /tmp, where another user could have put a folder or link by that name
    foreign = os.geteuid() != 0 and found.st_uid != os.geteuid()
    if not stat.S_ISDIR(found.st_mode) or foreign:
        raise BadState(
            f"{folder} belongs to uid {found.st_uid}, so our sockets cannot lie there; "
            "set XDG_RUNTIME_DIR to a folder of yours, or use a shorter --state-dir"
        )
    if found.st_uid != uid:
        os.chown(folder, uid, gid)
    folder.chmod(0o700)
    if folder != inside and not inside.is_symlink():
        try:
            inside.symlink_to(folder)
        except FileExistsError:
            # another process that starts in this moment may have been first
            if not inside.is_symlink():
                raise
    return folder


def ensure_run_dir(state_dir: Path) -> Path:
    """The run dir, made for this user where no `hostler up` did: processes may be started one by one."""
    folder = run_dir(state_dir)
    if not (state_dir / "run").is_dir():
        make_run_dir(state_dir, os.geteuid(), os.getegid())
    return folder


def remove_run_dir(state_dir: Path) -> None:
    """Remove a run dir outside the state dir, when nothing runs any more: its owner would not look for it there."""
    inside = state_dir / "run"
    if inside.is_symlink():
        shutil.rmtree(os.readlink(inside), ignore_errors=True)
        inside.unlink()


def check_state_path(state_dir: Path) -> None:
    """Raise PathTooLong or BadState for a path that some part could not use."""
    if len(os.fsencode(state_dir)) > STATE_PATH_BYTES:
        raise PathTooLong(f"{state_dir} is longer than {STATE_PATH_BYTES} bytes; use a shorter --state-dir")
    if any(character in str(state_dir) for character in "\n\r\0"):
        raise BadState(f"{str(state_dir)!r} holds a line break; use another --state-dir")


def _fits(folder: Path) -> bool:
    return max(len(os.fsencode(folder / name)) for name in SOCKET_NAMES) <= SOCKET_PATH_BYTES


def _short_dir(state_dir: Path) -> Path:
    mark = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:10]
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.path.isabs(base) and os.path.isdir(base) and _fits(Path(base) / f"hostler-{mark}"):
        return Path(base) / f"hostler-{mark}"
    if os.geteuid() == 0:
        return Path("/run") / f"hostler-{mark}"
    return Path("/tmp") / f"hostler-{os.geteuid()}-{mark}"  # noqa: S108  (owner and mode are checked by make_run_dir)
