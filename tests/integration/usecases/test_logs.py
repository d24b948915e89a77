"""Following a log: whole lines once, over a rotation, over a broken stream, to the end of the attempt."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases import logs
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from tests.support.embedded import wait_until
from tests.support.log_lines import take


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, state_dir=tmp_path)


@pytest.fixture
def replica(ctx: Context, actor: Actor) -> str:
    """A replica that runs, as its rows say; the test writes its log."""
    asked = request_create(ctx, actor, {"server_mode": "replica_mock", "model_name": "m"})
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend, node)"
                " VALUES (:id, 1, 'mark', 'local', 'process', 'here')"
            ),
            {"id": asked.replica_id},
        )
    return asked.replica_id


@pytest.fixture
def log(ctx: Context) -> Path:
    folder = ctx.settings.state_dir / "attempts" / "mark"
    folder.mkdir(parents=True)
    return folder / "log"


def _end(ctx: Context, replica_id: str) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET released_at = hostler_now()"))
        connection.execute(
            text("UPDATE replicas SET state = 'failed', reason = 'process_exited' WHERE id = :id"), {"id": replica_id}
        )
    ctx.notify(f"replica:{replica_id}")


def test_a_half_written_line_waits_for_its_rest(ctx: Context, replica: str, log: Path) -> None:
    log.write_text("one\ntw")
    lines = logs.follow(ctx, replica)
    assert [line.text for line in take(lines, 1)] == ["one\n"]
    with log.open("a") as file:
        file.write("o\n")
    assert [line.text for line in take(lines, 1)] == ["two\n"]
    _end(ctx, replica)
    assert [line for line in lines if line] == []


def test_a_broken_stream_goes_on_where_it_was_also_over_a_rotation(ctx: Context, replica: str, log: Path) -> None:
    log.write_text("one\ntwo\nthree\n")
    seen = take(logs.follow(ctx, replica), 2)
    log.rename(log.with_name("log.1"))
    log.write_text("four\n")
    _end(ctx, replica)
    rest = [line.text for line in logs.follow(ctx, replica, behind=seen[-1].place) if line]
    assert rest == ["three\n", "four\n"]


def test_what_is_no_place_begins_at_the_start(ctx: Context, replica: str, log: Path) -> None:
    log.write_text("one\n")
    _end(ctx, replica)
    for place in ("", "x", "1", "-", "1-x", "9" * 50 + "-1", "\u0663-\u0661"):
        assert [line.text for line in logs.follow(ctx, replica, behind=place) if line] == ["one\n"], place


def test_tail_then_what_comes(ctx: Context, replica: str, log: Path) -> None:
    log.write_text("one\ntwo\n")
    lines = logs.follow(ctx, replica, tail=1)
    assert [line.text for line in take(lines, 1)] == ["two\n"]
    with log.open("a") as file:
        file.write("three\n")
    _end(ctx, replica)
    assert [line.text for line in lines if line] == ["three\n"]


def test_without_a_file_the_kept_tail_is_the_log(ctx: Context, replica: str) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET log_tail = E'last\\nwords'"))
    _end(ctx, replica)
    assert [line.text for line in logs.follow(ctx, replica) if line] == ["last\n", "words\n"]


def test_a_quiet_follower_asks_the_database_only_when_something_changed(
    ctx: Context, replica: str, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    looks: list[bool] = []
    ask, look = logs._attempt, logs.Follower.new_lines
    monkeypatch.setattr(logs, "FOLLOW_S", 0.001)
    monkeypatch.setattr(logs, "_attempt", lambda *given: asked.append("") or ask(*given))
    monkeypatch.setattr(logs.Follower, "new_lines", lambda self: looks.append(True) or look(self))
    log.write_text("one\n")
    with ThreadPoolExecutor(1) as threads:
        rest = threads.submit(lambda: [line.text for line in logs.follow(ctx, replica) if line])
        wait_until(lambda: len(looks) > 100, 20, "a hundred looks at the file")
        assert len(asked) <= 3
        _end(ctx, replica)
        assert rest.result(20) == ["one\n"]


def test_where_no_file_is_kept_the_tail_in_the_database_is_told_as_it_grows(ctx: Context, replica: str) -> None:
    def say(words: str) -> None:
        with ctx.database.begin() as connection:
            connection.execute(text("UPDATE attempts SET log_tail = :words"), {"words": words})

    say("one\ntwo\n")
    follower, late = logs.Follower(ctx, replica, None), logs.Follower(ctx, replica, None)
    assert [line.text for line in follower.begin(None, None)] == []
    seen = list(follower.new_lines())
    assert [line.text for line in seen] == ["one\n", "two\n"]
    assert [line.text for line in late.begin(1, None)] == ["two\n"]
    say("one\ntwo\nthree\n")
    _end(ctx, replica)
    for one in (follower, late):
        one.look()
        assert [line.text for line in one.new_lines()] == ["three\n"]
        assert [line.text for line in one.new_lines()] == []
    rest = [line.text for line in logs.follow(ctx, replica, behind=seen[0].place) if line]
    assert rest == ["two\n", "three\n"]
