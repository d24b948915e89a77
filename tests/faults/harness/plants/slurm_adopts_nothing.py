"""A backend of a cluster that looks for no job of the attempt before it submits one.

Adopting first and the attempt's folder stand against a second job; with neither left, a submitter that died between
its submission and the record of it leaves a job that its successor submits again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.harness.plants import into_a_new_folder

#: A job that was submitted runs within this.
_BEGINS_S = 4.0


def _nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    def adopt(backend: Any, name: str, timeout_s: float = 5) -> None:
        return None

    return adopt


def _await_begin(folder: Path) -> None:
    """The first job finds its folder as it was, or starts nothing: that is what else stands against two."""
    deadline = time.monotonic() + _BEGINS_S
    while not (folder / "run.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)


PATCHES: dict[str, Callable[[Any], Any]] = {
    "workers.backends.slurm:SlurmBackend.adopt": _nothing,
    "workers.backends.slurm:SlurmBackend.launch": into_a_new_folder(
        lambda backend, name: Path(backend._context.options["folder"]) / name, _await_begin
    ),
}
