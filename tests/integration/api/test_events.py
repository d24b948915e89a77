"""The history: pages in both directions, and streams that show every event once, in whatever order commits come."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

from sqlalchemy import text
from werkzeug.test import TestResponse

from app.db.repos import events as repo
from app.usecases import events, feed
from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.embedded import wait_until
from tests.support.problems import assert_problem

SSE = {"Accept": "text/event-stream"}


def record(ctx: Context, number: int, **more: str) -> None:
    events.record_event(ctx, "test", {"number": number}, **more)


def numbers(found: list[dict]) -> list[int]:
    return [event["data"]["number"] for event in found if event["kind"] == "test"]


def messages(answer: TestResponse) -> Iterator[dict]:
    """The events of a stream as they come; {} for a keep-alive."""
    buffer = ""
    for chunk in answer.response:
        buffer += chunk if isinstance(chunk, str) else chunk.decode()
        while "\n\n" in buffer:
            block, buffer = buffer.split("\n\n", 1)
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "data" in fields:
                yield json.loads(fields["data"]) | {"sse_id": fields["id"]}
            elif "retry" not in fields:
                yield {}


def take(answer: TestResponse, count: int) -> list[dict]:
    found = []
    for message in messages(answer):
        if message:
            found.append(message)
        if len(found) == count:
            break
    answer.close()
    return found


def test_pages_go_both_ways(admin: Caller, ctx: Context) -> None:
    for number in range(5):
        record(ctx, number, pool="p")
    newest = admin.get("/api/v1/events?pool=p&limit=2").get_json()
    assert numbers(newest["events"]) == [4, 3]
    older = admin.get(f"/api/v1/events?pool=p&limit=3&cursor={newest['next_cursor']}").get_json()
    assert numbers(older["events"]) == [2, 1, 0]
    assert older["next_cursor"] is None
    first = admin.get("/api/v1/events?pool=p&limit=3&order=asc").get_json()
    assert numbers(first["events"]) == [0, 1, 2]
    rest = admin.get(f"/api/v1/events?pool=p&order=asc&cursor={first['next_cursor']}").get_json()
    assert numbers(rest["events"]) == [3, 4]
    for bad in ("x", "1-", "-1", "1-2-3", "99999999999999999999-1"):
        assert_problem(admin.get(f"/api/v1/events?cursor={bad}"), 422, "invalid_config")


def test_a_stream_goes_on_behind_the_last_event_id(admin: Caller, ctx: Context) -> None:
    for number in range(3):
        record(ctx, number, pool="p")
    first = admin.get("/api/v1/events?pool=p&order=asc").get_json()["events"][0]
    answer = admin.get("/api/v1/events?pool=p", **SSE, Last_Event_ID=first["id"])
    assert answer.mimetype == "text/event-stream"
    timer = threading.Timer(0.2, record, (ctx, 3), {"pool": "p"})
    timer.start()
    found = take(answer, 3)
    timer.join()
    assert numbers(found) == [1, 2, 3]
    assert all(event["sse_id"] == event["id"] for event in found)


def test_a_stream_without_a_cursor_begins_now(admin: Caller, ctx: Context) -> None:
    record(ctx, 1)
    answer = admin.get("/api/v1/events?kind=test", **SSE)
    # the client has its headers: from here on nothing is missed, although nobody has read the stream yet
    record(ctx, 2)
    assert numbers(take(answer, 1)) == [2]


def _next_of(stream: Iterator[dict], count: int) -> list[dict]:
    found: list[dict] = []
    for message in stream:
        if message:
            found.append(message)
        if len(found) == count:
            break
    return found


def test_commits_in_reverse_order_lose_nothing(admin: Caller, ctx: Context) -> None:
    """A transaction that began first and commits last is shown, and before the other."""
    record(ctx, 0, pool="p")
    start = admin.get("/api/v1/events?pool=p&order=asc").get_json()["events"][0]["id"]
    answer = admin.get("/api/v1/events?pool=p", **SSE, Last_Event_ID=start)
    with ctx.database.begin() as slow:
        repo.insert(slow, kind="test", actor="a", cause="c", pool="p", data={"number": 1})
        record(ctx, 2, pool="p")
        # committed, but a page that goes on later must not pass the open one
        assert numbers(admin.get(f"/api/v1/events?pool=p&order=asc&cursor={start}").get_json()["events"]) == []
        # a person who looks at the newest sees it
        assert numbers(admin.get("/api/v1/events?pool=p").get_json()["events"]) == [2, 0]
    assert numbers(take(answer, 2)) == [1, 2]


def test_a_slow_client_misses_nothing_and_holds_little(admin: Caller, ctx: Context) -> None:
    record(ctx, 0, pool="p")
    start = admin.get("/api/v1/events?pool=p&order=asc").get_json()["events"][0]["id"]
    answer = admin.get("/api/v1/events?pool=p", **SSE, Last_Event_ID=start)
    stream = messages(answer)
    record(ctx, 1, pool="p")
    assert numbers(_next_of(stream, 1)) == [1]
    (queue,) = events._feed_of(ctx)._queues
    count = feed.QUEUE_ROWS * 2
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO events (kind, actor, cause, pool, data)"
                " SELECT 'test', 'a', 'c', 'p', jsonb_build_object('number', n) FROM generate_series(2, :last) AS n"
            ),
            {"last": count + 1},
        )
    ctx.notify("events")
    wait_until(lambda: queue.lagging, 5, "the queue to overflow")
    assert len(queue) == 0
    assert numbers(_next_of(stream, count)) == list(range(2, count + 2))
    answer.close()


def test_many_streams_share_one_reader(admin: Caller, ctx: Context) -> None:
    answers = [admin.get("/api/v1/events?kind=test", **SSE) for _ in range(20)]
    pulled: list[list[dict]] = []
    readers = [threading.Thread(target=lambda a=answer: pulled.append(take(a, 1))) for answer in answers]
    for reader in readers:
        reader.start()
    wait_until(lambda: len(events._feed_of(ctx)._queues) == 20, 10, "20 subscriptions")
    record(ctx, 7)
    for reader in readers:
        reader.join(10)
    assert [numbers(one) for one in pulled] == [[7]] * 20
    wait_until(lambda: not events._feed_of(ctx)._queues, 5, "closed streams to be forgotten")
