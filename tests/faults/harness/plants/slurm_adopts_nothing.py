"""A backend of a cluster that looks for no job of the attempt before it submits one.

Adopting first and the attempt's folder stand against a second job; with neither left, a submitter that died between
its submission and the record of it leaves a job that its successor submits again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

#: A job that was submitted runs within this.
_BEGINS_S = 4.0


def _nothing(_: Callable[..., Any]) -> Callable[..., Any]:
    def adopt(backend: Any, name: str, timeout_s: float = 5) -> None:
        return None

    return adopt


def _into_a_new_folder(original: Callable[..., Any]) -> Callable[..., Any]:
    def launch(backend: Any, launch: Any, *more: Any, **named: Any) -> Any:
        folder = Path(backend._context.options["folder"]) / launch.name
        if folder.exists():
            # the first job finds its folder as it was, or starts nothing: that is what else stands against two
            deadline = time.monotonic() + _BEGINS_S
            while not (folder / "run.json").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.rename(folder, folder.with_name(f".was-{launch.name}-{uuid4().hex[:8]}"))
        return original(backend, launch, *more, **named)

    return launch


PATCHES: dict[str, Callable[[Any], Any]] = {
    "workers.backends.slurm:SlurmBackend.adopt": _nothing,
    "workers.backends.slurm:SlurmBackend.launch": _into_a_new_folder,
}
