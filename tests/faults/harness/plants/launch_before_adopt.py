"""A worker that takes over a launch launches at once, instead of asking first whether it was launched already.

Taken out: ``adopt`` at the beginning of a launch, and the two lines behind it that would refuse a second one, which
both hang on the attempt's folder: what stands there is moved away, as if each launch had a folder of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.faults.harness.plants import into_a_new_folder


class _Blind:
    """A backend that knows of nothing that runs; for the rest it is the real one."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def adopt(self, name: str, timeout_s: float = 5) -> None:
        return None


def _launch_first(original: Callable[..., Any]) -> Callable[..., Any]:
    def run(launch: Any) -> Any:
        launch.backend = _Blind(launch.backend)
        return original(launch)

    return run


PATCHES: dict[str, Callable[[Any], Any]] = {
    "workers.launching:_Launch.run": _launch_first,
    "workers.backends.process:ProcessBackend.launch": into_a_new_folder(lambda backend, name: backend._attempts / name),
}
