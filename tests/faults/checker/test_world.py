"""What the checker must find in the process table, in the folders and in what was seen all along."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.faults.checker.story import B, C, Story, free_port, name_of
from tests.faults.harness import world


def _end_engine(story: Story) -> None:
    story.engines[0].kill()
    story.engines[0].wait(30)


def _second_engine(story: Story) -> None:
    record = story.state_dir / "attempts" / name_of(C) / "engine.json"
    kept = record.read_text()
    story.engine(C, free_port())
    record.write_text(kept)


def _engine_of_b(story: Story) -> None:
    story.engine(B, free_port())


def _other_record(story: Story) -> None:
    record = {"pid": os.getpid(), "start": world.identity(os.getpid())}
    (story.state_dir / "attempts" / name_of(C) / "engine.json").write_text(json.dumps(record))


def _other_ref(story: Story) -> None:
    ref = json.dumps({"ref": {"pid": 1, "start": 1}})
    story.sql("UPDATE attempts SET backend_ref = %s WHERE replica_id = %s", ref, C)


def _start_again(story: Story) -> None:
    with open(story.folder / "starts" / name_of(C), "a", encoding="ascii") as file:
        file.write("1 process\n")


SPOILS: dict[str, tuple[Callable[[Story], None], str]] = {
    "its engine died": (_end_engine, "processes: a replica is ready and has no process"),
    "one engine too many": (_second_engine, "processes: an attempt has more than one engine"),
    "an engine on a port of nobody": (
        _second_engine,
        "processes: an engine listens on a port that is not leased to it",
    ),
    "an engine of one that is over": (
        _engine_of_b,
        "processes: something runs for an attempt that is over or unknown",
    ),
    "an engine of an attempt before": (
        lambda s: s.sql(
            "UPDATE attempts SET backend_ref = %s WHERE replica_id = %s", '{"ref": {"pid": 1, "start": 1}}', C
        ),
        "processes: the database names another process than the engine",
    ),
    "a ready replica on another port": (
        lambda s: s.sql("UPDATE replicas SET port = 1 WHERE id = %s", C),
        "processes: a ready replica does not listen on its port",
    ),
    "two starts": (_start_again, "launches: an engine was started more than once"),
    "two engines, one after the other": (
        lambda s: s.sighting("seen", attempt=name_of(C), pid=1, start=1, leads=True),
        "launches: an attempt was seen with more than one engine",
    ),
    "a process that outlived its leases": (
        lambda s: s.sighting("outlived", attempt=name_of(B), pid=1, start=1, released="then"),
        "launches: a process ran on after its attempt was released",
    ),
    "a stranger killed": (
        lambda s: s.journal("fault", name="reused-pid", hit={"stranger": {"pid": 2**22 - 1, "start": 1}}),
        "strangers: a process that is not ours was killed",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(story)
    assert expected in story.findings()


def test_a_stranger_that_lives_is_no_finding(story: Story) -> None:
    stranger = {"pid": os.getpid(), "start": world.identity(os.getpid())}
    story.journal("fault", name="reused-pid", hit={"stranger": stranger})
    assert story.findings() == set()
