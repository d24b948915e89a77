"""Trap 18: a worker freezes inside a launch for longer than its lease, others go on, and it thaws: one engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.steppers import Steppers
from tests.support.crew import Crew
from tests.support.embedded import wait_until
from tests.support.sampling import sampled

Line = tuple[str, int]
LAUNCHING = "workers/launching.py"
#: Workers that are frozen side by side.
TOGETHER = 40


@pytest.mark.timeout(300)
def test_worker_frozen_at_each_line_of_a_launch_and_thawed(crew: Crew, steppers: Steppers) -> None:
    listed = steppers.fork("launch", list_lines=True)
    listed.await_ended()
    crew.end(listed.replica)
    lines = [tuple(line) for line in listed.result["lines"] if line[0] == LAUNCHING]
    assert len(lines) > 40
    lines = sampled(lines)
    for first in range(0, len(lines), TOGETHER):
        _freeze_and_thaw(crew, steppers, lines[first : first + TOGETHER])


def _freeze_and_thaw(crew: Crew, steppers: Steppers, lines: list[Line]) -> None:
    forks = [steppers.fork("launch", stop_at=line, signal=signal.SIGSTOP) for line in lines]
    seen = {}
    for fork in forks:
        fork.await_frozen()
        crew.await_ready(fork.replica, timeout_s=60)
        seen[fork.case] = (crew.engines(fork.replica), crew.replica(fork.replica).port)
    for fork in forks:
        fork.thaw()
    for line, fork in zip(lines, forks, strict=True):
        fork.await_ended()
        story = f"frozen before {line}, came to {fork.outcome!r}\n{crew.story(fork.replica)}"
        row = crew.replica(fork.replica)
        assert row.state == "ready", story
        assert (crew.engines(fork.replica), row.port) == seen[fork.case], story
        assert crew.starts(fork.replica) == 1, story
        assert {kind: len(held) for kind, held in crew.leases(fork.replica).items()} == {"port": 1, "slot": 1}, story
        assert row.attempt == 1, story
    crew.end(*(fork.replica for fork in forks))


def test_two_workers_launch_under_one_name_at_one_instant(crew: Crew, steppers: Steppers) -> None:
    """The second took over from the first, which froze; both come to the launch itself together."""
    with _frozen(crew, "worker"):
        first = steppers.fork("launch", call=["workers.backends.process:ProcessBackend.launch", "before"],
                              signal=signal.SIGSTOP)  # fmt: skip
        first.await_frozen()
        replica = first.replica
        wait_until(lambda: crew.tasks(replica)[0].state == "queued", 30, "the lease of the frozen one to run out")
        second = steppers.fork("launch", replica=replica, signal=signal.SIGSTOP,
                               call=["workers.backends.process:ProcessBackend.launch", "before"])  # fmt: skip
        second.await_frozen()
        assert not second.ended, second.outcome
        first.thaw()
        second.thaw()
        first.await_ended()
        second.await_ended()
        crew.await_ready(replica)
    # how far the second one looks, and whether it still holds the launch by then, is a matter of speed
    assert second.outcome.rpartition("outcome=")[2] in ("ready", "waiting_for_ready", "starting", "superseded")
    assert crew.starts(replica) == 1
    assert len(crew.engines(replica)) == 1
    crew.end(replica)


def test_many_workers_claim_at_one_instant(crew: Crew, steppers: Steppers) -> None:
    """Trap 1: as many bells as workers, fewer replicas: each is claimed once."""
    with _frozen(crew, "worker"):
        replicas = [crew.create(pool="faults") for _ in range(3)]
        forks = [steppers.fork("launch", replica="", gate="go") for _ in range(8)]
        for fork in forks:
            assert fork.replica == ""
        steppers.open_gate("go")
        for fork in forks:
            fork.await_ended()
    # as on the pool's queue: "" is not bound to this node
    outcomes = [fork.outcome for fork in forks]
    claimed = [outcome for outcome in outcomes if outcome != "nothing to claim"]
    assert len(claimed) == 3, outcomes
    for replica in replicas:
        crew.await_ready(replica)
        assert crew.starts(replica) == 1
        assert len(crew.engines(replica)) == 1
        assert sum(f"replica={replica}" in outcome for outcome in outcomes) == 1
    crew.end(*replicas)


def test_the_last_slots_go_to_the_best_however_many_claim_at_one_instant(crew: Crew, steppers: Steppers) -> None:
    for turn in range(3):
        with _frozen(crew, "worker"):
            wanted = [crew.create(pool="tight", job={"job_priority": f"p{3 - number // 2}"}) for number in range(8)]
            forks = [steppers.fork("launch", replica="", pool="tight", gate=f"tight-{turn}") for _ in range(8)]
            for fork in forks:
                assert fork.replica == ""
            steppers.open_gate(f"tight-{turn}")
            for fork in forks:
                fork.await_ended()
            launched = {replica for replica in wanted if crew.replica(replica).state != "pending"}
            story = [fork.outcome for fork in forks]
            for replica in wanted[:6]:
                crew.stop_replica(replica)
        # the two of p0 were asked for last; a claim that came too early may have left one to the next bell
        assert launched <= set(wanted[6:]), story
        assert launched, story
        crew.end(*wanted)


@contextmanager
def _frozen(crew: Crew, role: str) -> Iterator[None]:
    """The crew's own processes of that role do nothing meanwhile."""
    group = crew.processes[role].pid
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)
