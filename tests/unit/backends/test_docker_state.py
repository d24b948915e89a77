"""What became of a container, where its daemon calls it unstarted and the kernel knows better."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.embedded import wait_until
from workers.backends.docker_config import ATTEMPT
from workers.backends.docker_state import is_ended, is_forgotten, is_living, is_unstarted, why_unknown
from workers.backends.proc import MARK, mark_of, words_of

NAME, ID = "hostler-x-1-1", "c0ffee" * 8
UNSTARTED = ("created", "configured", "initialized")


def told(status: str, pid: int) -> dict[str, Any]:
    return {"Id": ID, "State": {"Status": status, "Pid": pid}, "Config": {"Labels": {ATTEMPT: NAME}}}


@contextmanager
def kept_by(keeper: str, container: str, mark: str = "") -> Iterator[int]:
    """The pid of a process whose parent is called ``keeper`` and names ``container``."""
    program = "env -i sleep 60 & echo $!; wait"
    if mark:
        program = program.replace("env -i", f"env -i {MARK}={mark}")
    words = [keeper, "-c", program, keeper, container]
    with subprocess.Popen(words, executable="/bin/sh", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            wait_until(lambda: words_of(pid)[:1] == ["sleep"], 20, "the program")
            assert mark_of(pid) == (mark or None)
            yield pid
        finally:
            subprocess.run(["kill", "-9", str(pid)], check=True)


@pytest.mark.parametrize("status", UNSTARTED)
def test_what_waits_for_its_start_is_unstarted(status: str) -> None:
    with kept_by("conmon", ID) as pid:
        assert verdicts(told(status, pid)) == {"unstarted"}
    assert verdicts(told(status, 0)) == {"unstarted"}


@pytest.mark.parametrize("status", UNSTARTED)
def test_what_carries_the_mark_was_begun_and_lives(status: str) -> None:
    with kept_by("conmon", ID, NAME) as pid:
        assert verdicts(told(status, pid)) == {"living", "forgotten"}


@pytest.mark.parametrize("status", UNSTARTED)
def test_what_is_gone_may_have_been_the_program(status: str) -> None:
    with kept_by("conmon", ID, NAME) as pid:
        pass
    assert verdicts(told(status, pid)) == {"ended", "forgotten"}


@pytest.mark.parametrize("keeper, container, mark", [("sh", ID, ""), ("conmon", "5" * 48, ""), ("sh", ID, "n")])
def test_another_process_of_that_number_is_not_it(keeper: str, container: str, mark: str) -> None:
    with kept_by(keeper, container, mark) as pid:
        assert verdicts(told("initialized", pid)) == {"ended", "forgotten"}


def test_else_the_daemon_is_believed() -> None:
    assert verdicts(told("running", 0)) == {"living"}
    assert verdicts(told("paused", 1)) == {"living"}
    assert verdicts(told("exited", 0)) == {"ended"}
    assert verdicts(told("removing", 0)) == set()


def test_why_an_end_is_not_known() -> None:
    assert why_unknown(told("exited", 0)) == ""
    assert "conmon" in why_unknown({**told("exited", 0), "State": {"Status": "exited", "ExitCode": -1}})


def verdicts(seen: dict[str, Any]) -> set[str]:
    asked = {"unstarted": is_unstarted, "living": is_living, "ended": is_ended, "forgotten": is_forgotten}
    return {word for word, verdict in asked.items() if verdict(seen)}
