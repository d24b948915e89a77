"""Whether an image holds the program that is to run in it: asked before the start, for an init would only say "1"."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from workers.backends.base import ProgramMissing
from workers.backends.docker_daemon import Daemon
from workers.backends.options import DEFAULT_PATH

#: How a file begins that the kernel can run.
_RUNNABLE = (b"\x7fELF", b"#!")


def check_program(daemon: Daemon, container: str, program: str, config: Mapping[str, Any]) -> None:
    """Raises ProgramMissing when ``program`` is neither in the container's image nor in what is mounted."""
    if "/" in program and not program.startswith("/"):
        return  # relative to the attempt's folder
    image = str(config["Image"])
    folders = environ_of(daemon.find(container) or {})["PATH"].split(":") if "/" not in program else []
    places = [f"{folder}/{program}" for folder in folders] or [program]
    why = ""
    for place in places:
        why = _why_not(daemon, container, place, config["HostConfig"]["Mounts"])
        if why == "":
            return
        if why != os.strerror(errno.ENOENT):
            break
    raise ProgramMissing(f"cannot run {program!r} in image {image}: {why}")


def environ_of(seen: Mapping[str, Any]) -> dict[str, str]:
    """The variables that an image or a container sets, as the daemon tells; a PATH is always among them."""
    pairs = (seen.get("Config") or {}).get("Env") or ()
    return {"PATH": DEFAULT_PATH, **dict(pair.split("=", 1) for pair in pairs if "=" in pair)}


def _why_not(daemon: Daemon, container: str, place: str, mounts: list[dict[str, Any]]) -> str:
    mounted = _on_host(place, mounts)
    if mounted is not None:
        return _why_not_here(mounted)
    seen = daemon.look_at(container, place)
    if seen is None:
        return os.strerror(errno.ENOENT)
    if seen["isDir"]:
        return os.strerror(errno.EISDIR)
    target = seen["linkTarget"]
    if target != place:
        # the daemon's look at a link says where it leads, and nothing of what is there
        return _why_not(daemon, container, target, mounts)
    return "" if seen["executable"] else os.strerror(errno.EACCES)


def _on_host(place: str, mounts: list[dict[str, Any]]) -> Path | None:
    path = PurePosixPath(place)
    over = [mount for mount in mounts if path.is_relative_to(mount["Target"])]
    if not over:
        return None
    mount = max(over, key=lambda mount: len(mount["Target"]))
    return Path(mount["Source"]) / path.relative_to(mount["Target"])


def _why_not_here(path: Path) -> str:
    try:
        if path.is_symlink() and not path.exists():
            return ""  # where it leads is inside
        if path.is_dir():
            return os.strerror(errno.EISDIR)
        if not path.stat().st_mode & 0o111:
            return os.strerror(errno.EACCES)
        with path.open("rb") as file:
            begins = file.read(4)
    except OSError as error:
        return error.strerror or str(error)
    return "" if begins.startswith(_RUNNABLE) else os.strerror(errno.ENOEXEC)
