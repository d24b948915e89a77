"""Two beats ring twice as often, none rings never: a tick of the repair sweep is carried out once all the same."""

from __future__ import annotations

from typing import Any

from tests.faults.stepper import POOL, SilentBell
from tests.support.crew import Crew

TICKS = 4


def test_two_beats_make_no_tick_twice(crew: Crew) -> None:
    crew.start("beat@2")
    try:
        rung = "Sending due task"
        crew.await_that(lambda: rung in crew.log("beat@2"), "the second beat to ring")
        first = _ticks(crew)[-1].tick + 1
        crew.await_that(lambda: _ticks(crew)[-1].tick >= first + TICKS, f"{TICKS} more sweeps")
        swept = [row for row in _ticks(crew) if first <= row.tick < first + TICKS]
        assert [row.tick for row in swept] == list(range(first, first + TICKS))
        starts = [row.started_at for row in swept]
        gaps = [(later - earlier).total_seconds() for earlier, later in zip(starts, starts[1:], strict=False)]
        assert min(gaps) >= 0.8 * crew.settings.sweep_interval_s
        assert all(row.finished_at is not None for row in swept)
    finally:
        crew.kill("beat@2")


def test_no_beat_and_no_bell(crew: Crew) -> None:
    """The agent sweeps by its own timer: a create that nobody rang for is launched, a stop is carried out."""
    crew.kill("beat")
    bell = crew.ctx.doorbell
    crew.ctx.__dict__["doorbell"] = SilentBell()
    try:
        last = _ticks(crew)[-1].tick
        replica = crew.create(pool=POOL)
        crew.await_ready(replica)
        stop = crew.stop_replica(replica)
        crew.await_released(replica)
        assert crew.await_task(stop.task_id).state == "succeeded"
        crew.await_that(lambda: _ticks(crew)[-1].tick > last + 1, "sweeps without beat")
    finally:
        crew.ctx.__dict__["doorbell"] = bell
        crew.start("beat")


def _ticks(crew: Crew) -> list[Any]:
    return crew.rows("SELECT tick, started_at, finished_at FROM sweeps WHERE name = 'repair' ORDER BY tick")
