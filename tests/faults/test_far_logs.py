"""Logs read on another host while what copies them is killed, frozen and thawed: every line once, in order."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.usecases import logs
from app.usecases.context import Context
from app.usecases.restarts import request_restart
from tests.support.crew import Crew

#: Says numbers until it is told by a file to end.
COUNTS = """
import itertools, os, sys, time
for number in itertools.count():
    print(number, flush=True)
    if os.path.exists(sys.argv[1]):
        print("the end", end="")
        break
    time.sleep(0.005)
"""


@pytest.fixture
def elsewhere(crew: Crew, tmp_path: Path) -> Iterator[Context]:
    """A process of another host: its own state dir, the same database."""
    state = tmp_path / "elsewhere"
    state.mkdir(mode=0o700)
    ctx = Context.open(replace(crew.settings, node_name="elsewhere", state_dir=state))
    yield ctx
    ctx.close()


def _create(crew: Crew, end: Path) -> str:
    config = {"command": [sys.executable, "-c", COUNTS, str(end)], "readiness_path": "/"}
    replica = crew.create(mode="platform_workload", platform_config=config, run_diagnostics=False)
    crew.await_state(replica, "waiting_for_ready")
    return replica


def _follow(ctx: Context, replica: str, said: list[str]) -> None:
    for line in logs.follow(ctx, replica):
        if line is not None:
            said.append(line.text)


def _assert_whole(said: list[str]) -> None:
    assert said == [*(f"{number}\n" for number in range(len(said) - 1)), "the end\n"]


def test_agents_that_are_killed_frozen_and_thawed_lose_and_double_nothing(
    crew: Crew, elsewhere: Context, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    replica, said = _create(crew, end), []
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(_follow, elsewhere, replica, said)

        def goes_on(what: str) -> None:
            heard = len(said)
            crew.await_that(lambda: len(said) > heard + 200, f"lines after {what}", replica_id=replica)

        try:
            goes_on("the beginning")
            crew.kill("agent")
            crew.start("agent")
            goes_on("the agent was killed")
            frozen = crew.processes["agent"]
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                crew.start("agent@2")
                crew.await_heartbeat("agent@2")
                goes_on("another one took over")
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            goes_on("the first one thawed")
            crew.kill("agent@2")
            goes_on("the second one was killed")
        finally:
            end.touch()
        following.result(60)
    crew.await_released(replica)
    _assert_whole(said)
    assert list(logs.read(elsewhere, replica)) == said == list(logs.read(crew.ctx, replica))
    assert list(logs.read(elsewhere, replica, tail=3)) == said[-3:]


def test_what_only_the_backend_has_is_read_and_followed_to_its_end(crew: Crew, elsewhere: Context) -> None:
    replica = crew.create(pool="silent")
    crew.await_ready(replica)
    for ctx in (crew.ctx, elsewhere):
        words = [line.split(" ", 1)[1] for line in logs.read(ctx, replica)]
        assert words[1:] == ["mock: started\n", "mock: ready\n"]
    said: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(_follow, elsewhere, replica, said)
        crew.await_that(lambda: len(said) == 3, "what was there")
        crew.end(replica)
        following.result(30)
    assert any(line.endswith(" mock: asked to end\n") for line in said)
    assert list(logs.read(elsewhere, replica)) == said


def test_a_follower_goes_over_from_one_attempt_to_the_next(crew: Crew, elsewhere: Context, tmp_path: Path) -> None:
    replica = crew.create(mock={"log_lines": [f"line {number}" for number in range(50)]})
    crew.await_ready(replica)
    said: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(_follow, elsewhere, replica, said)
        crew.await_that(lambda: len(said) >= 50, "the first attempt's lines")
        restart = request_restart(crew.ctx, crew.actor, replica)
        assert crew.await_task(restart.task_id).state == "succeeded"
        crew.await_ready(replica)
        crew.end(replica)
        following.result(30)
    assert said == [*logs.read(crew.ctx, replica, 1), *logs.read(crew.ctx, replica, 2)]
    assert said == [*logs.read(elsewhere, replica, 1), *logs.read(elsewhere, replica, 2)]
