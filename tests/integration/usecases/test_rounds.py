"""Who looks at what serves, and when: rounds are held by one, rows are claimed once, and both by an index."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases import rounds, watching
from app.usecases.context import Context
from tests.support.keys import INSERT_ADMIN

NODE = "here"
#: hexadecimal ids, so that each test knows its rows by number
FILL = """
INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state, reason, node, port,
                      state_since, next_check_at, released_at, last_health, spec)
SELECT lpad(to_hex(:first + g), 12, '0'), '000000000000', 'local', 'process', 'mock', 'replica_mock', 'm', 2,
       CAST(:state AS text), CASE WHEN :state = 'failed' THEN 'cancelled' END, :node, 1000,
       hostler_now() - make_interval(secs => :since_s), hostler_now() - make_interval(secs => :due_s),
       CASE WHEN :state = 'failed' THEN hostler_now() END, '{"healthy": true}', '{"filler": "some two hundred bytes"}'
FROM generate_series(1, :count) g
"""


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    ctx = Context.open(replace(settings, node_name=NODE), pool_size=10)
    with ctx.database.begin() as connection:
        connection.execute(text(INSERT_ADMIN))
    yield ctx
    ctx.close()


def fill(ctx: Context, state: str, count: int = 1, **more: Any) -> None:
    values = {"first": 0, "node": NODE, "since_s": 60.0, "due_s": 1.0} | more
    with ctx.database.begin() as connection:
        connection.execute(text(FILL), {"state": state, "count": count, **values})


def change(ctx: Context, statement: str, **values: Any) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text(statement), values)


def is_dead(_: str) -> bool:
    return False


def is_alive(_: str) -> bool:
    return True


def test_a_round_is_one_workers_until_it_dies_or_falls_silent(ctx: Context) -> None:
    first, second = f"{NODE}/agent/1/1.0", f"{NODE}/agent/2/1.0"
    assert rounds.hold(ctx, NODE, first, is_alive, 15)
    assert rounds.hold(ctx, NODE, first, is_alive, 15), "it may begin the next one whenever it likes"
    assert not rounds.hold(ctx, NODE, second, is_alive, 15)
    assert rounds.hold(ctx, NODE, second, is_dead, 15), "seen dead: at once"
    assert not rounds.hold(ctx, NODE, first, is_alive, 15), "who was frozen meanwhile has lost it"
    change(ctx, "UPDATE clock SET shift = interval '16 s'")
    assert rounds.hold(ctx, NODE, first, is_alive, 15)
    change(ctx, "UPDATE clock SET shift = interval '-1 hour'")
    assert rounds.hold(ctx, NODE, second, is_alive, 15), "a clock that was set back stops no rounds"


def test_only_the_processes_of_this_host_are_asked_whether_they_live(ctx: Context) -> None:
    assert rounds.hold(ctx, None, "elsewhere/agent/1/1.0", is_alive, 15)
    assert not rounds.hold(ctx, None, f"{NODE}/agent/1/1.0", is_dead, 15)
    assert rounds.hold(ctx, NODE, f"{NODE}/agent/1/1.0", is_dead, 15), "another node's round is another"


def test_one_of_many_holds_a_round(ctx: Context) -> None:
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda n: rounds.hold(ctx, None, f"n{n}/agent/1/1.0", is_alive, 15), range(8)))
    assert sum(won) == 1


def test_a_mark_changes_with_its_row_and_with_no_other(ctx: Context) -> None:
    fill(ctx, "ready", 3)
    before = rounds.list_serving(ctx, NODE)
    assert rounds.list_serving(ctx, NODE) == before
    [one, *others] = sorted(before)
    change(ctx, "UPDATE replicas SET message = 'x' WHERE id = :id", id=one)
    after = rounds.list_serving(ctx, NODE)
    assert after[one] != before[one]
    assert {other: after[other] for other in others} == {other: before[other] for other in others}
    [row] = rounds.claim(ctx, [one])
    assert row.mark == rounds.list_serving(ctx, NODE)[one], "a claim hands out the mark it leaves"
    marks = rounds.freshen(ctx, "2026-01-01T00:00:00Z", [(one, 1, 200, 1.5, "HTTP 200"), (others[0], 7, 200, 1.0, "")])
    assert marks == {one: rounds.list_serving(ctx, NODE)[one]}, "another attempt's probe is not written"


@pytest.mark.parametrize("claim", ["round", "due"])
def test_many_that_claim_at_once_share_the_rows(ctx: Context, claim: str) -> None:
    """Each row is looked at by one of them; nobody waits for another."""
    fill(ctx, "ready" if claim == "round" else "starting", 200)
    ids = [f"{number:012x}" for number in range(1, 201)]
    together = threading.Barrier(8)
    claimed: Counter[str] = Counter()

    def look(_: int) -> list[str]:
        together.wait()
        rows = rounds.claim(ctx, ids) if claim == "round" else watching.claim_due(ctx, NODE)
        return [row.id for row in rows]

    with ThreadPoolExecutor(8) as threads:
        for found in threads.map(look, range(8)):
            claimed.update(found)
    # what one transaction held locked another one passes over, so a last look takes the rest
    claimed.update(row.id for row in (rounds.claim(ctx, ids) if claim == "round" else watching.claim_due(ctx, NODE)))
    assert set(claimed.values()) == {1}
    assert set(claimed) == set(ids)


def test_looks_at_one_replica_lie_an_interval_apart(ctx: Context) -> None:
    fill(ctx, "unhealthy")
    [row] = rounds.claim(ctx, [f"{1:012x}"])
    assert rounds.claim(ctx, [row.id]) == []
    assert watching.claim_due(ctx, NODE) == []
    change(ctx, "UPDATE clock SET shift = make_interval(secs => :s)", s=ctx.settings.probe_interval_s)
    assert len(rounds.claim(ctx, [row.id])) == 1


def test_what_is_on_its_way_is_due_by_its_own_clock(ctx: Context) -> None:
    for number, state in enumerate(("scheduling", "preparing", "starting", "waiting_for_ready", "stopping")):
        fill(ctx, state, first=number)
    fill(ctx, "stopping", first=10, node="elsewhere")
    fill(ctx, "starting", first=11, node=None)
    fill(ctx, "starting", first=12, due_s=-30.0)
    fill(ctx, "ready", first=20, since_s=0.0)
    fill(ctx, "ready", first=21)
    found = {int(row.id, 16) for row in watching.claim_due(ctx, NODE)}
    assert found == {1, 2, 3, 4, 5, 21}, "what served for longer is left to rounds"
    assert watching.claim_due(ctx, NODE) == []
    assert {int(row.id, 16) for row in watching.claim_due(ctx, None)} == {12}


@pytest.mark.parametrize("served, found", [("", {1, 2}), ("local", {1}), ("local, other", {1, 2}), ("none", set())])
def test_what_runs_on_no_host_of_ours_is_looked_at_where_its_pool_is_served(
    ctx: Context, served: str, found: set[int]
) -> None:
    """Another host may not reach it."""
    change(ctx, "INSERT INTO pools (name, backend, slots) VALUES ('other', 'mock', 1)")
    for state in ("starting", "ready"):
        fill(ctx, state, node=None)
        fill(ctx, state, first=1, node=None, since_s=3600.0)
        change(ctx, "UPDATE replicas SET pool = 'other' WHERE id = :id", id=f"{2:012x}")
        ctx.settings = replace(ctx.settings, node_pools=served)
        if state == "starting":
            assert {int(row.id, 16) for row in watching.claim_due(ctx, None)} == found
        else:
            assert {int(one, 16) for one in rounds.list_serving(ctx, None)} == found
        change(ctx, "TRUNCATE replicas CASCADE")


def test_hosts_that_serve_different_pools_hold_different_rounds(ctx: Context) -> None:
    assert rounds.hold(ctx, None, "first/agent/1/1.0", is_alive, 15)
    ctx.settings = replace(ctx.settings, node_pools="mock")
    assert rounds.hold(ctx, None, "second/agent/1/1.0", is_alive, 15)
    assert not rounds.hold(ctx, None, "third/agent/1/1.0", is_alive, 15)


def test_a_clock_that_is_set_back_leaves_nothing_behind(ctx: Context) -> None:
    change(ctx, "UPDATE clock SET shift = interval '1 hour'")
    fill(ctx, "stopping")
    fill(ctx, "ready", first=1)
    assert len(watching.claim_due(ctx, NODE)) == 1
    assert len(rounds.claim(ctx, [f"{2:012x}"])) == 1
    change(ctx, "UPDATE clock SET shift = interval '0'")
    assert len(watching.claim_due(ctx, NODE)) == 1
    assert len(rounds.claim(ctx, [f"{2:012x}"])) == 1


def test_the_few_that_are_due_are_found_by_index_among_the_many_that_are_not(ctx: Context) -> None:
    fill(ctx, "failed", 20_000)
    fill(ctx, "ready", 5_000, first=20_000, since_s=3600.0)
    fill(ctx, "pending", 5_000, first=25_000, node=None)
    fill(ctx, "starting", 3, first=30_000)
    with ctx.database.read() as connection:
        connection.execute(text("ANALYZE replicas"))
    before = _rows_read(ctx)
    assert len(watching.claim_due(ctx, NODE)) == 3
    assert _rows_read(ctx) - before < 30


def _rows_read(ctx: Context) -> int:
    """How many rows and index entries of replicas this session has read so far."""
    with ctx.database.read() as connection:
        connection.execute(text("SELECT pg_stat_force_next_flush()"))
        query = text(
            "SELECT seq_tup_read + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes i WHERE i.relid = t.relid)"
            " FROM pg_stat_user_tables t WHERE relname = 'replicas'"
        )
        return int(connection.execute(query).scalar_one())


def test_times_of_looks_are_those_of_the_database(ctx: Context) -> None:
    fill(ctx, "unhealthy")
    rounds.claim(ctx, [f"{1:012x}"])
    with ctx.database.read() as connection:
        query = text("SELECT next_check_at - hostler_now() FROM replicas")
        left = connection.execute(query).scalar_one()
    assert timedelta(0) < left <= timedelta(seconds=ctx.settings.probe_interval_s)
