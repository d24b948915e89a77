"""Logs of a service's replicas: each line once, with its replica, over broken streams and replicas that come and go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.errors import NotFound
from app.settings import Settings
from app.usecases import reconciling, service_logs, services
from app.usecases.context import Actor, Context
from tests.support.embedded import wait_until
from tests.support.services import Hands, create


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return replace(settings, state_dir=tmp_path)


def log_of(ctx: Context, replica_id: str) -> Path:
    """The log that the replica's attempt writes; the attempt is made when there is none."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend, node)"
                " VALUES (:id, 1, 'mark-' || :id, 'mock', 'mock', 'here') ON CONFLICT DO NOTHING"
            ),
            {"id": replica_id},
        )
    folder = ctx.settings.state_dir / "mock" / f"mark-{replica_id}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / "log"


def write(ctx: Context, replica_id: str, words: str) -> None:
    with log_of(ctx, replica_id).open("a") as file:
        file.write(words)


def end(ctx: Context, actor: Actor, hands: Hands, service_id: str) -> None:
    services.cancel(ctx, actor, service_id)
    hands.settle(service_id)
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET released_at = hostler_now()"))
    assert services.get(ctx, service_id)["ended_at"]


def test_all_that_ever_were_are_read_in_their_places(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = create(ctx, actor, 2).service_id
    hands.settle(service_id)
    first, second = (row.id for row in hands.replicas(service_id))
    write(ctx, first, "a\nb\n")
    write(ctx, second, "c\n")
    hands.pass_time(100)
    hands.fail(first)
    reconciling.sweep(ctx)
    third = hands.replicas(service_id)[-1].id
    write(ctx, third, "d\n")
    wanted = [f"{first} | a\n", f"{first} | b\n", f"{third} | d\n", f"{second} | c\n"]
    assert [line.named for line in service_logs.read(ctx, service_id)] == wanted
    assert [line.named for line in service_logs.read(ctx, service_id, tail=1)] == wanted[1:]
    assert [line.named for line in service_logs.read(ctx, service_id, "0")] == wanted[:3]
    assert [line.named for line in service_logs.read(ctx, service_id, second)] == wanted[3:]
    other = create(ctx, actor, 1).service_id
    for nobody in ("7", "f" * 12, hands.replicas(other)[0].id):
        with pytest.raises(NotFound):
            service_logs.read(ctx, service_id, nobody)


def test_a_follower_sees_each_line_once_and_who_comes_later_from_the_beginning(
    ctx: Context, actor: Actor, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_logs, "MEMBERS_S", 0.05)
    service_id = create(ctx, actor, 1).service_id
    hands.settle(service_id)
    first = hands.replicas(service_id)[0].id
    write(ctx, first, "old\nnew\n")
    heard: list[str] = []

    def follow() -> None:
        for line in service_logs.follow(ctx, service_id, tail=1):
            if line is not None:
                heard.append(line.named)

    with ThreadPoolExecutor(1) as threads:
        following = threads.submit(follow)
        wait_until(lambda: heard == [f"{first} | new\n"], 10, "the last line")
        services.scale(ctx, actor, service_id, 2)
        second = hands.replicas(service_id)[1].id
        write(ctx, second, "one\ntwo\n")
        hands.settle(service_id)
        wait_until(lambda: len(heard) == 3, 10, "the lines of the second")
        # half a line is not told before its other half
        write(ctx, first, "ha")
        write(ctx, second, "three\n")
        wait_until(lambda: len(heard) == 4, 10, "a line more")
        write(ctx, first, "lf\n")
        end(ctx, actor, hands, service_id)
        following.result(20)
    assert sorted(heard) == sorted(
        [f"{first} | new\n", f"{first} | half\n", *(f"{second} | {word}\n" for word in ("one", "two", "three"))]
    )


def test_a_stream_that_broke_goes_on_behind_what_was_seen(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = create(ctx, actor, 2).service_id
    hands.settle(service_id)
    first, second = (row.id for row in hands.replicas(service_id))
    write(ctx, first, "a\nb\n")
    write(ctx, second, "c\n")
    end(ctx, actor, hands, service_id)
    whole = [line for line in service_logs.follow(ctx, service_id) if line]
    assert [line.named for line in whole] == [f"{first} | a\n", f"{first} | b\n", f"{second} | c\n"]
    for number, line in enumerate(whole, 1):
        rest = [one.named for one in service_logs.follow(ctx, service_id, behind=line.place) if one]
        assert rest == [one.named for one in whole[number:]]


@pytest.mark.parametrize("place", ["", "x", "a:b", ",,,", "0" * 5000, "ffffffffffff:1-2", "ffffffffffff:9-" + "9" * 30])
def test_a_place_that_is_none_begins_at_the_beginning(ctx: Context, actor: Actor, hands: Hands, place: str) -> None:
    service_id = create(ctx, actor, 1).service_id
    hands.settle(service_id)
    write(ctx, hands.replicas(service_id)[0].id, "a\n")
    end(ctx, actor, hands, service_id)
    assert [line.text for line in service_logs.follow(ctx, service_id, behind=place) if line] == ["a\n"]


def test_a_place_grows_no_longer_than_a_header_may_be(
    ctx: Context, actor: Actor, hands: Hands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_logs, "LONGEST_PLACE", 40)
    service_id = create(ctx, actor, 3).service_id
    hands.settle(service_id)
    for row in hands.replicas(service_id):
        write(ctx, row.id, "a\n")
    end(ctx, actor, hands, service_id)
    places = [line.place for line in service_logs.follow(ctx, service_id) if line]
    assert places[0] is not None
    assert places[-1] is None


def test_a_service_that_is_forgotten_ends_what_follows_it(ctx: Context, actor: Actor, hands: Hands) -> None:
    service_id = create(ctx, actor, 0).service_id
    with ctx.database.begin() as connection:
        connection.execute(text("DELETE FROM services WHERE id = :id"), {"id": service_id})
    assert list(service_logs.follow(ctx, service_id)) == []
