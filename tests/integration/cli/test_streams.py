"""Followed logs and events: they survive broken connections, lose nothing, double nothing, and end."""

from __future__ import annotations

import asyncio
import json

from hostler import AsyncClient, Client
from hostler.verbs import events_feed
from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub, problem, sse

LOGS = "/api/v1/replicas/r1/logs"
EVENTS = "/api/v1/events"


def event(number: int) -> str:
    body = {"id": number, "at": "2026-01-01T00:00:00Z", "kind": "transition", "replica_id": "r1", "to_state": "ready"}
    return f"id: c{number}\nevent: transition\ndata: {json.dumps(body)}\n\n"


def test_followed_logs_end_with_the_attempt(stub: Stub, run: Run) -> None:
    stub.on(
        "GET",
        LOGS,
        sse(": hello\n\n", "event: log\ndata: one\n\n", "event: log\ndata: \n\n", "event: end\ndata: {}\n\n"),
    )
    result = run("replica", "logs", "r1", "-f", "--tail", "5", "--attempt", "2")
    assert result.stdout == "one\n\n"
    assert stub.asked[0].query == {"follow": ["1"], "tail": ["5"], "attempt": ["2"]}
    assert stub.asked[0].headers["accept"] == "text/event-stream"


def test_followed_logs_end_with_the_stream(stub: Stub, run: Run) -> None:
    stub.on("GET", LOGS, sse("event: log\ndata: one\n\n", whole=True))
    assert run("replica", "logs", "r1", "-f").stdout == "one\n"
    assert len(stub.asked) == 1


def test_followed_logs_say_where_lines_may_be_missing(stub: Stub, run: Run) -> None:
    end = "event: end\ndata: {}\n\n"
    stub.on("GET", LOGS, sse("event: log\ndata: one\n\n"), sse("event: log\ndata: three\n\n", end))
    result = run("replica", "logs", "r1", "-f", "--tail", "5")
    assert result.stdout == "one\nthree\n"
    assert "lines may be missing" in result.stderr
    assert [asked.query["tail"] for asked in stub.asked] == [["5"], ["0"]]


def test_followed_logs_with_ids_miss_nothing(stub: Stub, run: Run) -> None:
    end = "event: end\ndata: {}\n\n"
    stub.on("GET", LOGS, sse("id: 7\nevent: log\ndata: one\n\n"), sse("id: 8\nevent: log\ndata: two\n\n", end))
    result = run("replica", "logs", "r1", "-f")
    assert (result.stdout, result.stderr) == ("one\ntwo\n", "")
    assert stub.asked[1].headers["last-event-id"] == "7"


def test_a_replicas_events_end_with_its_record(stub: Stub, run: Run) -> None:
    gone = 'id: c2\nevent: replica_deleted\ndata: {"id": "c2", "kind": "replica_deleted"}\n\n'
    stub.on("GET", "/api/v1/replicas/r1/events", sse(event(1), gone))
    assert run("replica", "events", "r1", "-f", "-o", "name").stdout.split() == ["1", "c2"]


def test_a_broken_stream_goes_on_after_the_last_event(stub: Stub, run: Run) -> None:
    stub.on("GET", EVENTS, sse(event(1), event(2)), sse(event(3), "event: end\ndata: {}\n\n"))
    result = run("events", "-f", "--cursor", "c0", "-o", "name")
    assert result.stdout.split() == ["1", "2", "3"]
    assert [asked.headers["last-event-id"] for asked in stub.asked] == ["c0", "c2"]


def test_following_starts_at_the_newest_event_so_that_an_early_break_misses_none(stub: Stub, run: Run) -> None:
    newest = Answer(body={"events": [{"id": "c9"}], "next_cursor": None})
    stub.on("GET", EVENTS, newest, sse(": nothing yet\n\n"), sse(event(10), "event: end\ndata: {}\n\n"))
    assert run("events", "-f", "-o", "name").stdout == "10\n"
    assert [asked.headers.get("last-event-id") for asked in stub.asked] == [None, "c9", "c9"]


def test_half_an_event_is_not_an_event(stub: Stub, run: Run) -> None:
    stub.on("GET", EVENTS, sse(event(1), event(2)[:-1]), sse(event(2), "event: end\ndata: {}\n\n"))
    assert run("events", "-f", "--cursor", "c0", "-o", "name").stdout.split() == ["1", "2"]
    assert stub.asked[1].headers["last-event-id"] == "c1"


def test_followed_events_as_json_are_a_line_each(stub: Stub, run: Run) -> None:
    stub.on("GET", EVENTS, sse(event(1), "event: end\ndata: {}\n\n"))
    lines = run("events", "-f", "--cursor", "c0", "-o", "json", "--replica", "r1").stdout.splitlines()
    assert [json.loads(line)["id"] for line in lines] == [1]
    assert stub.asked[0].query == {"replica_id": ["r1"]}
    assert stub.asked[0].headers["accept"] == "text/event-stream"


def test_a_hostile_log_line_is_cleaned_unless_raw(stub: Stub, run: Run) -> None:
    stub.on("GET", LOGS, sse("event: log\ndata: \x1b[31mred\x1b[0m\n\n", "event: end\ndata: \n\n"))
    assert run("replica", "logs", "r1", "-f").stdout == "red\n"
    assert run("replica", "logs", "r1", "-f", "--raw").stdout == "\x1b[31mred\x1b[0m\n"


def test_following_what_is_not_there_is_exit_3(run: Run) -> None:
    assert run("replica", "logs", "r1", "-f").exit_code == 3


def test_a_refusal_in_the_middle_is_told(stub: Stub, run: Run) -> None:
    stub.on("GET", EVENTS, sse(event(1)), problem(401, "unauthenticated", "the key was revoked"))
    assert run("events", "-f", "--cursor", "c0").exit_code == 4


def test_following_a_down_server_is_exit_8(run: Run) -> None:
    assert run("--url", "http://127.0.0.1:1", "events", "-f").exit_code == 8


def test_plain_logs(stub: Stub, run: Run) -> None:
    stub.on("GET", LOGS, Answer(body="a\nb", headers={"Content-Type": "text/plain"}))
    assert run("replica", "logs", "r1").stdout == "a\nb\n"


def test_both_clients_follow_alike(stub: Stub) -> None:
    stub.on("GET", EVENTS, sse(event(1)), sse(event(2), "event: end\ndata: {}\n\n"))
    stub.on("GET", "/api/v1/tasks/t1", Answer(cut=True), Answer(body={"id": "t1", "state": "succeeded"}))

    async def with_async() -> list[object]:
        async with AsyncClient(stub.url, "key") as client:
            ended = await client.wait_task("t1", timeout_s=10)
            return [ended["state"], *[item.json()["id"] async for item in client.follow(events_feed())]]

    assert asyncio.run(with_async()) == ["succeeded", 1, 2]
    with Client(stub.url, "key") as blocking:
        assert blocking.wait_task("t1")["state"] == "succeeded"
        assert [item.json()["id"] for item in blocking.follow(events_feed(after="c1"))] == [2]
