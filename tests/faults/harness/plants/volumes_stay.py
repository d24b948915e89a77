"""A container goes without the volumes that it was given by its image: each leaves some behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _without_volumes(_: Callable[..., Any]) -> Callable[..., Any]:
    def remove(daemon: Any, container: str, *, force: bool = False, timeout_s: float = 20) -> None:
        daemon._ask_or_none(lambda client: client.remove_container(container, v=False, force=force), timeout_s)

    return remove


PATCHES: dict[str, Callable[[Any], Any]] = {"workers.backends.docker_daemon:Daemon.remove": _without_volumes}
