"""Attempts that share a job: started, and looked up where they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.conformance.world import World
from workers.backends.base import Handle, Liveness


def start_members(
    world: World, count: int, behaviour: str = "idle", line: str = "started", **more: Any
) -> list[Handle]:
    handles = [world.backend.launch(world.plan(behaviour, **more)) for _ in range(count)]
    for handle in handles:
        world.wait_for_line(handle, line)
        world.wait_for(handle, Liveness.RUNNING)
    return handles


def engine_pids(world: World, handles: Sequence[Handle]) -> list[int]:
    seen = [world.wait_for(handle, Liveness.RUNNING).pid for handle in handles]
    return [pid for pid in seen if pid is not None]


def job_folder(world: World, handle: Handle) -> Path:
    root = Path(world.options["folder"])
    found = [path for path in (root / ".shared").iterdir() if (path / "members" / handle.name).exists()]
    assert len(found) == 1
    return found[0]
