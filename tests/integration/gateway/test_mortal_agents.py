"""The agent killed at every line of a turn, and frozen at many: HAProxy serves on, and the next one takes over.

Each case brings one replica in and takes another out, so that every step has something to do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from typing import Any

import pytest

from app.gateway.lock import AgentLock
from tests.integration.gateway.conftest import World
from tests.support.crew import ROOT, environment
from tests.support.embedded import wait_until
from tests.support.sampling import sampled

STEADY = "ffffffffffff"


class Mortals:
    """Forks agents of the world's gateway."""

    def __init__(self, world: World) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.gateway.mortal_agent"],
            env=environment(world.settings),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._say({"slots": world.front.slots, "port": world.front.port})

    def fork(self, **case: Any) -> dict[str, Any]:
        self._say(case)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        assert answer, "the process that forks agents ended"
        return json.loads(answer)  # type: ignore[no-any-return]

    def _say(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def mortals(world: World) -> Iterator[Mortals]:
    mortals = Mortals(world)
    yield mortals
    mortals.close()


@contextmanager
def steady_stream(world: World) -> Iterator[None]:
    """A request that goes on all the time, and must come to its own end."""
    world.add(STEADY)
    world.turn()
    with world.front.stream("/stream", {}, route="tiny") as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"begun"
        yield
        world.servers[STEADY].finish()
        assert b"".join(pieces) == b" ended"


def change(world: World, number: int) -> None:
    """One comes, the one before it is gone for good."""
    world.add(f"{number:012x}", model=f"m{number % 3}")
    if number > 1:
        world.release(f"{number - 1:012x}")
        world.servers.pop(f"{number - 1:012x}").close()


def check_between(world: World) -> None:
    """Whatever HAProxy has or would be started with is held, and who was served before is served."""
    held = world.held()
    shown = {server for _slot, server in world.front.shown().servers}
    written = {
        line.split()[1]
        for line in world.front.places.config.read_text().splitlines()
        if line.strip().startswith("server ")
    }
    assert shown <= held, "a server without a row: its port may be given away"
    assert written <= held, "a server in the file without a row"
    assert world.answers("tiny", 1) == {STEADY}


def check_taken_over(world: World, number: int) -> None:
    """The next agent's turns come to what the database says."""
    keeper = world.new_keeper()
    wait_until(lambda: not keeper.turn().unfinished, 10, "the next agent to be done")
    wanted = {f"{STEADY}-1", f"{number:012x}-1"}
    assert {server for _slot, server in world.front.shown().servers} == wanted
    assert world.held() == wanted
    assert world.answers(f"m{number % 3}", 1) == {f"{number:012x}"}
    assert keeper.turn().commands == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_every_line(world: World, mortals: Mortals) -> None:
    with steady_stream(world):
        change(world, 1)
        check_taken_over(world, 1)
        change(world, 2)
        lines = json.loads(mortals.fork()["told"])
        assert len(lines) > 150
        check_taken_over(world, 2)
        for number, at in enumerate(sampled(lines), start=3):
            change(world, number)
            found = mortals.fork(at=at, signal=signal.SIGKILL)
            assert found["status"] in (signal.SIGKILL, 0), (at, found)
            check_between(world)
            check_taken_over(world, number)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_frozen_while_the_world_goes_on(world: World, mortals: Mortals) -> None:
    with steady_stream(world):
        change(world, 1)
        check_taken_over(world, 1)
        change(world, 2)
        lines = json.loads(mortals.fork()["told"])
        check_taken_over(world, 2)
        number = 3
        for at in sampled(lines[::5]):
            change(world, number)
            pid = mortals.fork(at=at, signal=signal.SIGSTOP)["pid"]
            wait_until(lambda pid=pid: _state(pid) in "TZ", 10, "it to freeze")
            # what it has in mind to bring in is gone when it thaws, and another is there
            change(world, number + 1)
            if _state(pid) == "T":
                assert not _lock_is_free(world), "a newer agent would work beside a frozen one"
                os.kill(pid, signal.SIGCONT)
            wait_until(lambda pid=pid: _state(pid) in "Z", 10, "it to end")
            check_between(world)
            check_taken_over(world, number + 1)
            number += 2


def _state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def _lock_is_free(world: World) -> bool:
    lock, over = AgentLock(world.front.places.folder / "agent.lock"), Event()
    timer = Timer(0.05, over.set)
    timer.start()
    try:
        return lock.acquire(over, 0.01)
    finally:
        timer.cancel()
        lock.close()
