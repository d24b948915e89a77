"""Traps 1 and 2: a worker is killed before each line of a launch and of a stop, and the crew still gets it right."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.faults.stepper import POOL
from tests.faults.steppers import Fork, Steppers
from tests.support.crew import Crew
from tests.support.sampling import sampled

Line = tuple[str, int]
#: Workers that are killed side by side; each leaves an engine behind for a moment.
TOGETHER = 30
#: The same for lines that were not reached among so many: on a slow machine the crew is faster than the fork.
FEW = 5


@pytest.mark.timeout(300)
def test_worker_killed_at_each_line_of_a_launch(crew: Crew, steppers: Steppers) -> None:
    """A kill before a line is a kill after the one before it: every gap between two steps is tried."""
    listed = _list_launch(crew, steppers)
    lines = [tuple(line) for line in listed.result["lines"]]
    assert len(lines) > 60
    lines = sampled(lines)
    missed = _kill_launchers(crew, steppers, lines, TOGETHER)
    missed = _kill_launchers(crew, steppers, missed, FEW)
    assert len(missed) < 0.2 * len(lines), f"{len(missed)} of {len(lines)} lines were not reached: {missed}"


def _list_launch(crew: Crew, steppers: Steppers) -> Fork:
    """A launch that nobody breaks off, by a fork: where the crew was faster there are no lines to list."""
    for _ in range(FEW):
        listed = steppers.fork("launch", list_lines=True)
        listed.await_ended()
        crew.end(listed.replica)
        if "outcome=ready" in listed.outcome:
            return listed
        assert listed.outcome == "nothing to claim"
    raise AssertionError(f"the crew was faster than the fork {FEW} times")


@pytest.mark.timeout(300)
def test_worker_killed_at_each_line_of_a_stop(crew: Crew, steppers: Steppers) -> None:
    listed = steppers.fork("stop", list_lines=True, replica=_some_ready(crew, 1)[0])
    listed.await_ended()
    assert "outcome=gone" in listed.outcome
    lines = [tuple(line) for line in listed.result["lines"]]
    assert len(lines) > 40
    lines = sampled(lines)
    missed = _kill_stoppers(crew, steppers, lines, TOGETHER)
    missed = _kill_stoppers(crew, steppers, missed, FEW)
    assert len(missed) < 0.2 * len(lines), f"{len(missed)} of {len(lines)} lines were not reached: {missed}"


def _kill_launchers(crew: Crew, steppers: Steppers, lines: list[Line], size: int) -> list[Line]:
    """Those of ``lines`` that nobody came to."""
    missed: list[Line] = []
    for together in _batches(lines, size):
        forks = [steppers.fork("launch", stop_at=line, signal=signal.SIGKILL) for line in together]
        missed += [line for line, fork in zip(together, forks, strict=True) if not _killed(fork)]
        for line, fork in zip(together, forks, strict=True):
            _became_one(crew, fork.replica, line)
        crew.end(*(fork.replica for fork in forks))
    return missed


def _kill_stoppers(crew: Crew, steppers: Steppers, lines: list[Line], size: int) -> list[Line]:
    """Those of ``lines`` that nobody came to."""
    missed: list[Line] = []
    for together in _batches(lines, size):
        ready = _some_ready(crew, len(together))
        forks = [
            steppers.fork("stop", stop_at=line, signal=signal.SIGKILL, replica=replica)
            for line, replica in zip(together, ready, strict=True)
        ]
        missed += [line for line, fork in zip(together, forks, strict=True) if not _killed(fork)]
        for line, replica in zip(together, ready, strict=True):
            _was_put_away(crew, replica, line)
    return missed


def _batches(lines: list[Line], size: int) -> Iterator[list[Line]]:
    for first in range(0, len(lines), size):
        yield lines[first : first + size]


def _killed(fork: Fork) -> bool:
    fork.await_ended()
    # the crew may have been faster to claim it, or a race went another way than when the lines were listed: then this
    # line was not reached, and nothing was harmed
    return fork.outcome == "" and fork.result == {}


def _became_one(crew: Crew, replica: str, line: Line) -> None:
    crew.await_ready(replica)
    story = f"killed before {line}\n{crew.story(replica)}"
    assert crew.starts(replica) == 1, story
    assert len(crew.engines(replica)) == 1, story
    assert crew.replica(replica).attempt == 1, story
    leases = crew.leases(replica)
    assert {kind: len(numbers) for kind, numbers in leases.items()} == {"port": 1, "slot": 1}, story
    assert crew.replica(replica).port == leases["port"][0] == crew.attempt(replica).port, story
    [task] = crew.tasks(replica)
    assert (task.state, task.lease_token) == ("succeeded", None), story
    path = crew.path(replica)
    assert path == list(dict.fromkeys(path)), story


def _was_put_away(crew: Crew, replica: str, line: Line) -> None:
    row = crew.await_released(replica)
    story = f"killed before {line}\n{crew.story(replica)}"
    assert row.state == "stopped", story
    assert crew.engines(replica) == [], story
    assert [event.kind for event in crew.events(replica)].count("released") == 1, story
    assert crew.path(replica)[-2:] == ["stopping", "stopped"], story
    stop = crew.tasks(replica)[-1]
    assert (stop.kind, crew.await_task(stop.id).state) == ("stop", "succeeded"), story


def _some_ready(crew: Crew, count: int) -> list[str]:
    replicas = [crew.create(pool=POOL, run_diagnostics=False) for _ in range(count)]
    for replica in replicas:
        crew.await_ready(replica, timeout_s=60)
    return replicas
