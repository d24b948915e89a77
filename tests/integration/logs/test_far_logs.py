"""A log is read alike wherever it lies: whole lines once, over rotations, broken streams, dead agents and ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from app.db.repos import log_copies
from app.domain.masking import MASK
from app.errors import LogAway
from app.usecases import copying_logs, far_logs, logs
from app.usecases.copying_logs import Piece, Progress
from tests.integration.logs.conftest import Hosts
from tests.support.embedded import wait_until
from tests.support.log_lines import take, texts
from workers.backends.base import BackendUnavailable, LogPart
from workers.backends.process import ProcessBackend


def test_what_is_there_is_read_whole_also_half_a_line(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\ntwo\nhal")
    with hosts.copying():
        assert list(logs.read(hosts.here, replica)) == ["one\n", "two\n", "hal\n"]
        assert list(logs.read(hosts.here, replica, tail=2)) == ["two\n", "hal\n"]
        assert list(logs.read(hosts.here, replica, tail=0)) == []
        hosts.write(replica, "f\nmore\n")
        assert list(logs.read(hosts.here, replica, 1)) == ["one\n", "two\n", "half\n", "more\n"]
        # on its own host it is read from the file, and nothing is copied
        copies = hosts.count("log_copies")
        assert list(logs.read(hosts.far, replica)) == ["one\n", "two\n", "half\n", "more\n"]
        assert hosts.count("log_copies") == copies


def test_one_that_never_stops_talking_is_read_as_far_as_it_was_when_asked(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_log, looks = ProcessBackend.read_log, itertools.count()

    def another_line_before_each_look(*arguments: Any, **named: Any) -> LogPart:
        # of one that goes on for ever the test would never hear
        if (number := next(looks)) < 2000:
            hosts.write(replica, f"more {number}\n")
        return read_log(*arguments, **named)

    hosts.write(replica, "one\ntwo\n")
    monkeypatch.setattr(ProcessBackend, "read_log", another_line_before_each_look)
    with hosts.copying():
        first, second = (list(logs.read(hosts.here, replica)) for _ in range(2))
    assert first[:3] == ["one\n", "two\n", "more 0\n"]
    assert second[: len(first)] == first
    assert len(first) < len(second) < 2000


def test_it_is_followed_to_the_end_of_the_attempt(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\ntw")
    with hosts.copying(), ThreadPoolExecutor(1) as threads:
        lines = logs.follow(hosts.here, replica)
        assert [line.text for line in take(lines, 1)] == ["one\n"]
        rest = threads.submit(texts, lines)
        hosts.write(replica, "o\nthree\nlast")
        hosts.end(replica)
        assert rest.result(20) == ["two\n", "three\n", "last\n"]


def test_tail_then_what_comes(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\ntwo\nthree\n")
    with hosts.copying():
        lines = logs.follow(hosts.here, replica, tail=2)
        assert [line.text for line in take(lines, 2)] == ["two\n", "three\n"]
        hosts.write(replica, "four\n")
        hosts.end(replica)
        assert texts(lines) == ["four\n"]


def test_the_last_lines_of_a_long_log_cost_what_they_are(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{number} {'x' * 90}\n" for number in range(170_000)]
    hosts.write(replica, "".join(lines[:80_000]))
    hosts.rotate(replica)
    hosts.write(replica, "".join(lines[80_000:]))
    read = _count_bytes(monkeypatch)
    with hosts.copying():
        assert list(logs.read(hosts.here, replica, tail=3)) == lines[-3:]
        assert list(logs.read(hosts.here, replica, tail=0)) == []
        following = logs.follow(hosts.here, replica, tail=2)
        seen = take(following, 2)
        assert [line.text for line in seen] == lines[-2:]
        hosts.write(replica, "more\nhal")
        assert [line.text for line in take(following, 1)] == ["more\n"]
        hosts.rotate(replica)
        hosts.write(replica, "f\n")
        assert [line.text for line in take(following, 1)] == ["half\n"]
        assert sum(read) < 200_000
        # more than is kept, over the border between the two files
        assert list(logs.read(hosts.here, replica, tail=90_004)) == [*lines[80_000:], "more\n", "half\n"]
        # a stream that broke goes on behind its line, wherever the last lines are by now
        hosts.write(replica, "".join(f"{number}\n" for number in range(50)))
        again = logs.follow(hosts.here, replica, tail=2, behind=seen[-1].place)
        assert [line.text for line in take(again, 52)] == [
            "more\n", "half\n", *(f"{number}\n" for number in range(50))
        ]  # fmt: skip


def test_what_is_written_after_the_last_lines_were_none_is_followed_from_its_first_line(
    hosts: Hosts, replica: str
) -> None:
    with hosts.copying(), ThreadPoolExecutor(1) as threads:
        following = logs.follow(hosts.here, replica, tail=1)
        found = threads.submit(take, following, 40)
        wait_until(lambda: hosts.count("log_copies") == 1, 20, "a copy")
        wait_until(lambda: hosts.count("log_copies WHERE began IS NOT NULL") == 1, 20, "a place where it begins")
        hosts.write(replica, "".join(f"{number}\n" for number in range(40)))
        assert [line.text for line in found.result(20)] == [f"{number}\n" for number in range(40)]
        following.close()  # type: ignore[attr-defined]


def test_many_readers_of_about_as_many_last_lines_share_a_copy(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "".join(f"{number}\n" for number in range(100)))
    with hosts.copying():
        for tail in (9, 10, 12, 16):
            assert list(logs.read(hosts.here, replica, tail=tail)) == [f"{n}\n" for n in range(100 - tail, 100)]
        assert hosts.count("log_copies") == 1
        hosts.write(replica, "".join(f"{number}\n" for number in range(100, 200)))
        assert list(logs.read(hosts.here, replica, tail=10)) == [f"{n}\n" for n in range(190, 200)]


def _count_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each look of the copier at a log brought."""
    seen: list[int] = []
    read_log = ProcessBackend.read_log

    def counted(self: ProcessBackend, *args: Any, **more: Any) -> LogPart:
        part = read_log(self, *args, **more)
        seen.append(len(part.data))
        return part

    monkeypatch.setattr(ProcessBackend, "read_log", counted)
    return seen


def test_a_broken_stream_goes_on_where_it_was(hosts: Hosts, replica: str, shift_clock: Callable[[float], None]) -> None:
    hosts.write(replica, "one\ntwo\nthree\nfour\n")
    with hosts.copying():
        seen = take(logs.follow(hosts.here, replica), 4)
        hosts.rotate(replica)
        hosts.write(replica, "five\n")
        hosts.end(replica)
        wanted = ["one\n", "two\n", "three\n", "four\n", "five\n"]
        for number, line in enumerate(seen, 1):
            assert texts(logs.follow(hosts.here, replica, behind=line.place)) == wanted[number:]
        # also long after the copy was dropped
        shift_clock(1000)
        wait_until(lambda: hosts.count("log_copies") == 0, 20, "copies that nobody reads being dropped")
        assert hosts.count("log_chunks") == 0
        for number, line in enumerate(seen, 1):
            assert texts(logs.follow(hosts.here, replica, behind=line.place)) == wanted[number:]


def test_a_place_that_is_not_ours_begins_at_the_start(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\n")
    with hosts.copying():
        [line] = take(logs.follow(hosts.here, replica), 1)
        hosts.end(replica)
        offset, words, signature = line.place.split(".")
        forged = (
            "", "x", "f", "f1..", "1-2", "f0.." + "0" * 20, "f" + "9" * 30 + f".{words}.{signature}",
            f"{offset}.AAAA.{signature}", f"f7.{words}.{signature}", f"{offset}.{words}.{'0' * 20}",
            "f1.\u00e9." + "0" * 20,
        )  # fmt: skip
        for place in forged:
            assert texts(logs.follow(hosts.here, replica, behind=place)) == ["one\n"], place
        other = hosts.replica()
        hosts.write(other, "two\n")
        hosts.end(other)
        assert texts(logs.follow(hosts.here, other, behind=line.place)) == ["two\n"]


def test_an_attempt_that_ends_while_it_is_read_is_read_to_its_end_before_the_next(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\n")
    with hosts.copying():
        lines = logs.follow(hosts.here, replica)
        assert [line.text for line in take(lines, 1)] == ["one\n"]
        hosts.write(replica, "last words of the first\nhalf")
        hosts.attempt(replica, 2)
        hosts.write(replica, "first words of the second\n", 2)
        assert [line.text for line in take(lines, 3)] == [
            "last words of the first\n",
            "half\n",
            "first words of the second\n",
        ]
        hosts.write(replica, "more\n", 2)
        hosts.end(replica)
        assert texts(lines) == ["more\n"]


def test_the_last_words_of_an_attempt_here_are_read_before_the_next(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\n")
    lines = logs.follow(hosts.far, replica)
    assert [line.text for line in take(lines, 1)] == ["one\n"]
    hosts.write(replica, "last words\nhalf")
    hosts.attempt(replica, 2)
    hosts.write(replica, "two\n", 2)
    assert [line.text for line in take(lines, 3)] == ["last words\n", "half\n", "two\n"]
    hosts.end(replica)
    assert texts(lines) == []


def test_secrets_of_that_host_are_masked_before_they_are_stored(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers import log_copier

    monkeypatch.setattr(log_copier, "LOG_PART_BYTES", 64)
    (hosts.far.settings.secrets_dir / "token").write_text("s3cret-token\n")
    for before in range(40, 70):
        hosts.write(replica, "x" * before + "s3cret-token" + "y" * 9 + "e" * 40 + "\n")
    hosts.write(replica, "s3cret-token")
    with hosts.copying():
        lines = logs.follow(hosts.here, replica)
        said = [line.text for line in take(lines, 30)]
        stored = b"".join(_column(hosts, "SELECT data FROM log_chunks UNION ALL SELECT rest FROM log_copies"))
        assert b"s3cret" not in stored
        assert b"e" * 40 not in stored
        hosts.end(replica)
        said += texts(lines)
    assert said == [*("x" * before + MASK + "y" * 9 + MASK + "\n" for before in range(40, 70)), f"{MASK}\n"]


def _column(hosts: Hosts, query: str) -> list[bytes]:
    with hosts.here.database.read() as connection:
        return [bytes(value) for (value,) in connection.execute(text(query))]


def test_many_readers_cost_one_copy(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "".join(f"line {number}\n" for number in range(100)))
    wanted = [f"line {number}\n" for number in range(200)]
    with hosts.copying(), ThreadPoolExecutor(40) as threads:
        readers = [threads.submit(texts, logs.follow(hosts.here, replica)) for _ in range(20)]
        wait_until(lambda: hosts.count("log_chunks") > 0, 20, "something copied")
        readers += [threads.submit(texts, logs.follow(hosts.here, replica)) for _ in range(20)]
        for number in range(100, 200):
            hosts.write(replica, f"line {number}\n")
        hosts.end(replica)
        assert all(reader.result(30) == wanted for reader in readers)
        assert hosts.count("log_copies") == 1


def test_a_slow_reader_holds_up_nobody_and_loses_nothing(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying_logs, "KEEP_BYTES", 50_000)
    monkeypatch.setattr(copying_logs, "AHEAD_BYTES", 50_000)
    monkeypatch.setattr(far_logs, "UNREAD_BYTES", 10_000)
    wanted = [f"line {number:06d} {'x' * 80}\n" for number in range(20_000)]
    hosts.write(replica, "".join(wanted))
    with hosts.copying():
        slow = logs.follow(hosts.here, replica)
        seen = [line.text for line in take(slow, 5)]
        quick = list(logs.read(hosts.here, replica))
        assert quick == wanted
        sizes = _column(hosts, "SELECT convert_to(sum(length(data))::text, 'utf8') FROM log_chunks GROUP BY copy_id")
        # what was copied is about as much as is kept and read ahead, in parts of at most 256 KiB
        assert max(int(size) for size in sizes) < 900_000
        hosts.end(replica)
        assert seen + texts(slow) == wanted
    assert hosts.count("log_copies") <= 3


def test_what_is_rotated_away_unread_is_lost_and_the_rest_is_whole_lines(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\nhalf")
    with hosts.copying():
        lines = logs.follow(hosts.here, replica)
        assert [line.text for line in take(lines, 1)] == ["one\n"]
    # nobody copies for a while
    for number in range(3):
        hosts.rotate(replica)
        hosts.write(replica, f"of the rest\nline {number}\n")
    with hosts.copying("agent-again"):
        hosts.end(replica)
        assert texts(lines) == ["of the rest\n", "line 1\n", "of the rest\n", "line 2\n"]


def test_another_agent_goes_on_and_one_that_was_frozen_doubles_nothing(hosts: Hosts, replica: str) -> None:
    hosts.write(replica, "one\n")
    with hosts.copying("agent-first"):
        lines = logs.follow(hosts.here, replica)
        assert [line.text for line in take(lines, 1)] == ["one\n"]
    [frozen] = copying_logs.take(hosts.far, "frozen")
    at = Progress(frozen.place, frozen.size_bytes, frozen.read_bytes)
    hosts.write(replica, "two\n")
    # it is taken over when the frozen one's time has run out
    with hosts.copying("agent-second"):
        assert [line.text for line in take(lines, 1)] == ["two\n"]
        assert copying_logs.append(hosts.far, frozen.id, at, Piece(b"two\n", "elsewhere")) is None
        hosts.end(replica)
        assert texts(lines) == []


def test_without_an_agent_it_is_said(hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.write(replica, "one\n")
    with pytest.raises(LogAway, match="no agent there copies it"):
        list(logs.read(hosts.here, replica, patience_s=0.5))
    # of a host that is known to be silent nothing is waited for
    with hosts.here.database.begin() as connection:
        connection.execute(text("UPDATE nodes SET heartbeat_at = heartbeat_at - interval '1 hour'"))
    with pytest.raises(LogAway, match="nothing is heard of its host far"):
        list(logs.read(hosts.here, replica, patience_s=1000))
    monkeypatch.setattr(far_logs, "GIVE_UP_S", 0.5)
    with hosts.here.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET log_tail = E'last\\nwords'"))
    assert list(logs.read(hosts.here, replica, patience_s=0.5)) == ["last\n", "words\n"]
    hosts.end(replica)
    assert texts(logs.follow(hosts.here, replica)) == ["last\n", "words\n"]
    with hosts.here.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET log_tail = ''"))
    [told] = texts(logs.follow(hosts.here, replica))
    assert told.startswith("(The log of mark-")
    assert "no agent there copies it" in told


def test_an_agent_that_waits_for_what_has_the_log_is_not_said_to_be_missing(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def frozen(*_: object, **__: object) -> LogPart:
        asked.set()
        assert go_on.wait(60)
        raise BackendUnavailable("the daemon does not answer within 10 s")

    monkeypatch.setattr(ProcessBackend, "read_log", frozen)
    monkeypatch.setattr(far_logs, "LOOK_S", 0.1)
    with hosts.copying():
        try:
            with pytest.raises(LogAway, match="the agent that copies it has no answer yet"):
                list(logs.read(hosts.here, replica, patience_s=3))
            assert asked.is_set()
        finally:
            go_on.set()
        # it told why at once, also those who read already
        with pytest.raises(LogAway, match="the daemon does not answer within 10 s"):
            list(logs.read(hosts.here, replica, patience_s=3))


def test_the_copies_of_one_log_are_bounded(hosts: Hosts, replica: str) -> None:
    with hosts.here.database.read() as connection:
        attempt_id = connection.execute(text("SELECT id FROM attempts")).scalar_one()
    with hosts.here.database.begin() as connection:
        made = [log_copies.join(connection, attempt_id, f"place {number}") for number in range(40)]
        assert [row is not None for row in made] == [number < log_copies.MOST_COPIES for number in range(40)]
        again = log_copies.join(connection, attempt_id, "place 0")
        assert again is not None
        assert again.id == made[0].id  # type: ignore[union-attr]


def test_a_replica_that_is_deleted_ends_what_follows_it(
    hosts: Hosts, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.write(replica, "one\n")
    with hosts.copying(), ThreadPoolExecutor(1) as threads:
        lines = logs.follow(hosts.here, replica)
        assert [line.text for line in take(lines, 1)] == ["one\n"]
        rest = threads.submit(texts, lines)
        with hosts.here.database.begin() as connection:
            connection.execute(text("DELETE FROM replicas"))
        hosts.here.notify(f"replica:{replica}")
        assert rest.result(30) == []
