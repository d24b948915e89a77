"""Gangs: all of a service get their slots, ports and GPUs at one instant, or none of them does. Workers are threads."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.db.engine import Database
from app.settings import Settings
from app.usecases import ends, gangs, launch_claims, launches, pools, presence
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.ends import End
from app.usecases.explain import explain
from app.usecases.launch_claims import LaunchClaim
from app.usecases.presence import NodeFacts
from app.usecases.restarts import request_restart
from app.usecases.stops import request_stop
from tests.support.embedded import fresh_database

GPUS = {"big": 4, "small": 2}


class Stage:
    """Two hosts, one with four GPUs and one with two, whose workers are this test."""

    def __init__(self, hosts: dict[str, Context], actor: Actor) -> None:
        self.hosts, self.ctx, self.actor = hosts, hosts["big"], actor
        self.pool = self.add_pool()

    def add_pool(self, **body: Any) -> str:
        name = f"p{secrets.token_hex(4)}"
        pools.create(self.ctx, self.actor, {"name": name, "backend": "process", "slots": 8, **body})
        presence.heartbeat_worker(self.ctx, f"n/worker/{name}", "worker", 1, [f"pool.{name}"], 1)
        return name

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.ctx.database.begin() as connection:
            found = connection.execute(text(statement), values)
            return list(found) if found.returns_rows else []

    def gang(self, size: int, *, gpus: int = 0, pool: str = "", made: int | None = None) -> tuple[str, list[str]]:
        """A service as reconciling makes it; ``made`` members of it are there."""
        service = secrets.token_hex(6)
        self.rows(
            "WITH s AS (INSERT INTO services (id, name, owner, pool, count) VALUES (:id, 's' || :id, :owner, :pool,"
            " :count) RETURNING id) INSERT INTO service_revisions (service_id, number, actor, cause)"
            " SELECT id, 1, 'tester', 'test' FROM s",
            id=service,
            owner=self.actor.key_id,
            pool=pool or self.pool,
            count=size,
        )
        return service, [self.member(service, number, gpus, pool) for number in range(size if made is None else made)]

    def member(self, service: str, ordinal: int, gpus: int = 0, pool: str = "") -> str:
        # in one transaction where services make them: the row of the member may not be missing when it is claimed
        self.rows("UPDATE pools SET state = 'draining' WHERE name = :pool", pool=pool or self.pool)
        replica = self.create(gpus, pool, gang=service)
        self.rows(
            "INSERT INTO service_members (replica_id, service_id, revision, ordinal) VALUES (:r, :s, 1, :o)",
            r=replica,
            s=service,
            o=ordinal,
        )
        self.rows("UPDATE pools SET state = 'active' WHERE name = :pool", pool=pool or self.pool)
        return replica

    def create(self, gpus: int = 0, pool: str = "", **more: Any) -> str:
        body = {"server_mode": "replica_mock", "model_name": "m", "pool": pool or self.pool, **more}
        body |= {"resources": {"gpus": gpus}} if gpus else {}
        return request_create(self.ctx, self.actor, body).replica_id

    def claim(self, host: str = "big", pool: str = "") -> LaunchClaim | None:
        return launch_claims.claim_launch(self.hosts[host], pool=pool or self.pool, worker=f"{host}/worker/1/1.0")

    def claim_all(self, host: str = "big", pool: str = "") -> list[LaunchClaim]:
        return list(iter(lambda: self.claim(host, pool), None))

    def gone(self, claim: LaunchClaim) -> None:
        end = End(launch_claims.Reason.PROCESS_EXITED, "test", gone=True)
        assert ends.record_failed(self.ctx, claim.replica_id, claim.attempt, claim.state, end)

    def states(self, ids: list[str]) -> list[str]:
        found = {row.id: row.state for row in self.rows("SELECT id, state FROM replicas WHERE id = ANY(:ids)", ids=ids)}
        return [found[one] for one in ids]

    def held(self, ids: list[str]) -> dict[str, list[tuple[str, int]]]:
        """kind -> (scope, number) of everything that the replicas hold, each as often as it is held."""
        found: dict[str, list[tuple[str, int]]] = {}
        query = (
            "SELECT l.kind, l.scope, l.number FROM leases l JOIN attempts a ON a.id = l.attempt_id"
            " WHERE a.replica_id = ANY(:ids) AND l.released_at IS NULL"
        )
        for row in self.rows(query, ids=ids):
            found.setdefault(row.kind, []).append((row.scope, row.number))
        return found

    def later(self, seconds: float) -> None:
        self.rows(
            "UPDATE tasks SET created_at = created_at - make_interval(secs => :s) WHERE state = 'queued'", s=seconds
        )


@pytest.fixture
def stage(parts: Settings, migrated: str, tmp_path: Path) -> Iterator[Stage]:
    with fresh_database(parts, migrated) as url:
        hosts = {}
        for name, count in GPUS.items():
            settings = replace(
                parts, state_dir=tmp_path, database_url=url, namespace=secrets.token_hex(4), node_name=name,
                ports=(20000, 20019),
            )  # fmt: skip
            hosts[name] = Context(settings, Database(url, pool_size=12))
            presence.register_node(hosts[name], NodeFacts(1, 1, [{"index": n} for n in range(count)], "boot", "test"))
        actor = Actor(secrets.token_hex(6), "tester", "admin")
        with hosts["big"].database.begin() as connection:
            connection.execute(
                text("INSERT INTO keys (id, name, hash, prefix, role) VALUES (:id, 'k', :hash, 'x', 'admin')"),
                {"id": actor.key_id, "hash": secrets.token_hex(32).upper()},
            )
        yield Stage(hosts, actor)
        for ctx in hosts.values():
            ctx.close()


def test_all_of_them_get_their_capacity_with_the_first_that_is_claimed(stage: Stage) -> None:
    _, members = stage.gang(4, gpus=1)
    first = stage.claim()
    assert first is not None
    assert first.replica_id in members
    assert stage.states(members) == ["scheduling"] * 4
    held = stage.held(members)
    assert sorted(held["gpu"]) == [("big", number) for number in range(4)]
    assert len(set(held["port"])) == len(set(held["slot"])) == 4
    rest = stage.claim_all()
    assert sorted(claim.replica_id for claim in [first, *rest]) == sorted(members)
    assert len({claim.port for claim in [first, *rest]}) == 4
    assert sorted(claim.gpus for claim in [first, *rest]) == [(0,), (1,), (2,), (3,)]
    assert all(launches.record_launching(stage.ctx, claim, may_queue=False) for claim in [first, *rest])


def test_none_gets_anything_while_one_has_no_room(stage: Stage) -> None:
    holder = stage.create(gpus=1)
    held = stage.claim()
    assert held is not None
    assert held.replica_id == holder
    _, members = stage.gang(2, gpus=2)
    assert stage.claim() is None
    assert stage.states(members) == ["pending"] * 2
    assert stage.held(members) == {}
    told = explain(stage.ctx, members[0])
    assert (told["rule"], told["position"]) == ("no_gpu", 1)
    assert "waits for 4 GPUs together with the 1 others" in told["message"]
    assert "at most 3 are free" in told["message"]
    stage.gone(held)
    assert len(stage.claim_all()) == 2


@pytest.mark.parametrize("backend", ["process", "mock"])
def test_slots_come_together_too(stage: Stage, backend: str) -> None:
    pool = stage.add_pool(slots=4, backend=backend)
    single = stage.create(pool=pool)
    held = stage.claim(pool=pool)
    assert held is not None
    assert held.replica_id == single
    _, members = stage.gang(4, pool=pool)
    assert stage.claim(pool=pool) is None
    assert stage.held(members) == {}
    assert "waits for 4 slots together" in explain(stage.ctx, members[2])["message"]
    stage.gone(held)
    assert len(stage.claim_all(pool=pool)) == 4


def test_smaller_work_passes_for_a_while_and_then_no_more(stage: Stage) -> None:
    stage.create(gpus=2)
    first = stage.claim()
    assert first is not None
    _, members = stage.gang(4, gpus=1)
    stage.create(gpus=1)
    passing = stage.claim()
    assert passing is not None
    assert passing.replica_id not in members
    stage.gone(passing)
    stage.later(gangs.PATIENCE_S + 1)
    late, plain = stage.create(gpus=1), stage.create()
    found = stage.claim()
    assert found is not None
    assert found.replica_id == plain, "what wants no GPU takes nothing that the gang waits for"
    assert stage.claim() is None, "the gang was passed long enough"
    stage.gone(first)
    assert sorted(claim.replica_id for claim in stage.claim_all()) == sorted(members)
    assert stage.states([late]) == ["pending"]


def test_who_comes_later_does_not_get_the_room_that_comes_in_between(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.create(gpus=1)
    holders = stage.claim_all()
    _, first = stage.gang(4, gpus=1)
    _, second = stage.gang(4, gpus=1)
    take = gangs.take

    def room_comes(*args: Any, **more: Any) -> bool:
        try:
            return take(*args, **more)
        except gangs.StepsAside:
            while holders:
                stage.gone(holders.pop())
            raise

    monkeypatch.setattr(gangs, "take", room_comes)
    assert sorted(claim.replica_id for claim in stage.claim_all()) == sorted(first)
    assert stage.states(second) == ["pending"] * 4


def test_what_passes_for_ever_leaves_the_gang_all_its_slots(stage: Stage) -> None:
    pool = stage.add_pool(slots=4)
    stage.create(gpus=4, pool=pool)
    holder = stage.claim(pool=pool)
    _, members = stage.gang(2, gpus=2, pool=pool)
    stage.later(gangs.PATIENCE_S + 1)
    plain = [stage.create(pool=pool) for _ in range(2)]
    assert [claim.replica_id for claim in stage.claim_all(pool=pool)] == plain[:1]
    assert holder is not None
    stage.gone(holder)
    assert sorted(claim.replica_id for claim in stage.claim_all(pool=pool)) == sorted([*members, plain[1]])


def test_a_gang_that_came_later_waits_for_the_one_before(stage: Stage) -> None:
    stage.create(gpus=2)
    first = stage.claim()
    _, before = stage.gang(4, gpus=1)
    stage.later(gangs.PATIENCE_S + 1)
    _, after = stage.gang(2, gpus=1)
    assert stage.claim() is None
    assert first is not None
    stage.gone(first)
    claims = stage.claim_all()
    assert sorted(claim.replica_id for claim in claims) == sorted(before)
    for claim in claims:
        stage.gone(claim)
    assert sorted(claim.replica_id for claim in stage.claim_all()) == sorted(after)


def test_gangs_that_contend_are_launched_whole_and_one_after_the_other(stage: Stage) -> None:
    pool = stage.add_pool(slots=6)
    made = [stage.gang(3, gpus=1, pool=pool)[1] for _ in range(4)]
    whole: list[list[str]] = []
    for _ in made:
        barrier = threading.Barrier(8)

        def work(_number: int, barrier: threading.Barrier = barrier) -> list[LaunchClaim]:
            barrier.wait()
            return stage.claim_all(pool=pool)

        with ThreadPoolExecutor(8) as threads:
            claims = [claim for found in threads.map(work, range(8)) for claim in found]
        claims += stage.claim_all(pool=pool)
        ids = sorted(claim.replica_id for claim in claims)
        assert len(ids) == len(set(ids)) == 3, "four GPUs hold one gang of three, and no part of a second"
        assert len({gpu for claim in claims for gpu in claim.gpus}) == 3
        whole.append(ids)
        for claim in claims:
            stage.gone(claim)
    assert sorted(whole) == sorted(sorted(members) for members in made)


def test_stops_of_members_and_claims_of_their_gang_never_wait_for_each_other(stage: Stage) -> None:
    for _ in range(6):
        _, members = stage.gang(4, gpus=1)
        barrier = threading.Barrier(6)

        def work(number: int, barrier: threading.Barrier = barrier, members: list[str] = members) -> list[LaunchClaim]:
            barrier.wait()
            if number < 2:
                for member in members if number else reversed(members):
                    request_stop(stage.ctx, stage.actor, member, force=True)
                return []
            return stage.claim_all()

        with ThreadPoolExecutor(6) as threads:
            claims = [claim for found in threads.map(work, range(6)) for claim in found]
        # of each member either the stop was first and it holds nothing, or it was taken with all and is being ended
        for member, state in zip(members, stage.states(members), strict=True):
            assert state in ("stopped", "stopping"), state
            if state == "stopping":
                assert ends.record_gone(stage.ctx, member, 1)
        assert stage.held(members) == {}
        assert len({claim.replica_id for claim in claims}) == len(claims)
    assert stage.rows("SELECT 1 FROM units WHERE lease_id IS NOT NULL") == []


def test_a_member_that_is_not_there_yet_keeps_the_others_and_nobody_else_waiting(stage: Stage) -> None:
    service, members = stage.gang(3, gpus=1, made=2)
    behind = stage.create(gpus=1)
    found = stage.claim()
    assert found is not None
    assert found.replica_id == behind
    assert stage.claim() is None
    assert explain(stage.ctx, members[0])["rule"] == "gang_incomplete"
    members.append(stage.member(service, 2, gpus=1))
    assert sorted(claim.replica_id for claim in stage.claim_all()) == sorted(members)


def test_a_member_that_is_cancelled_while_they_wait_takes_none_of_them_in(stage: Stage) -> None:
    service, members = stage.gang(3, gpus=1)
    request_stop(stage.ctx, stage.actor, members[1])
    assert stage.claim() is None
    assert stage.states(members) == ["pending", "stopped", "pending"]
    # two are enough from now on
    stage.rows("UPDATE services SET count = 2 WHERE id = :id", id=service)
    assert len(stage.claim_all()) == 2


def test_a_member_that_is_cancelled_when_they_hold_their_capacity_gives_back_its_own(stage: Stage) -> None:
    _, members = stage.gang(3, gpus=1)
    first = stage.claim()
    assert first is not None
    other = next(one for one in members if one != first.replica_id)
    told = explain(stage.ctx, other)
    assert (told["rule"], told["status"]) == ("launched_next", "scheduling")
    request_stop(stage.ctx, stage.actor, other)
    assert stage.states([other]) == ["stopped"], "nobody was asked to launch it"
    assert len(stage.held(members)["gpu"]) == 2
    assert [claim.replica_id for claim in stage.claim_all()] == [
        one for one in members if one not in (other, first.replica_id)
    ]


def test_nothing_of_a_cancelled_service_is_claimed(stage: Stage) -> None:
    service, members = stage.gang(2)
    stage.rows("UPDATE services SET desired_state = 'cancelled' WHERE id = :id", id=service)
    behind = stage.create()
    assert [claim.replica_id for claim in stage.claim_all()] == [behind]
    assert stage.states(members) == ["pending"] * 2


def test_what_fits_on_no_host_ends_at_once_and_says_what_is_missing_where(stage: Stage) -> None:
    _, members = stage.gang(3, gpus=2)
    behind = stage.create()
    assert [claim.replica_id for claim in stage.claim_all()] == [behind]
    rows = stage.rows("SELECT state, reason, message, released_at FROM replicas WHERE id = ANY(:ids)", ids=members)
    assert {(row.state, row.reason) for row in rows} == {("failed", "no_capacity")}
    assert all(row.released_at for row in rows)
    for words in ("its 3 replicas start together", "want 6 GPUs", "big has 4 GPUs, 2 missing", "small has 2 GPUs, 4"):
        assert words in rows[0].message
    tasks = stage.rows("SELECT state, reason FROM tasks WHERE replica_id = ANY(:ids)", ids=members)
    assert {tuple(row) for row in tasks} == {("failed", "no_capacity")}
    assert stage.rows("SELECT 1 FROM attempts WHERE replica_id = ANY(:ids)", ids=members) == []


def test_what_no_pool_holds_ends_too_though_a_full_pool_hides_it(stage: Stage) -> None:
    pool = stage.add_pool(slots=2)
    for _ in range(2):
        stage.create(pool=pool)
        assert stage.claim(pool=pool)
    _, members = stage.gang(3, pool=pool)
    _, fits = stage.gang(2, pool=pool)
    assert stage.claim(pool=pool) is None
    assert gangs.end_hopeless(stage.ctx) == 3
    assert stage.states([*members, *fits]) == ["failed"] * 3 + ["pending"] * 2
    [row] = stage.rows("SELECT message FROM replicas WHERE id = :id", id=members[0])
    assert f"pool {pool} has 2, 1 missing" in row.message
    assert gangs.end_hopeless(stage.ctx) == 0


def test_a_host_that_is_too_small_leaves_it_to_the_other_and_its_own_work_goes_on(stage: Stage) -> None:
    pool = stage.add_pool(slots=20)
    _, members = stage.gang(3, gpus=1, pool=pool)
    stage.later(gangs.PATIENCE_S + 1)
    plain = stage.create(gpus=1, pool=pool)
    assert [claim.replica_id for claim in stage.claim_all("small", pool)] == [plain]
    assert stage.states(members) == ["pending"] * 3
    assert len(stage.claim_all("big", pool)) == 3


def test_a_worker_that_died_right_after_leaves_launches_that_hold_their_capacity(stage: Stage) -> None:
    _, members = stage.gang(3, gpus=1)
    [task] = stage.rows("SELECT id FROM tasks WHERE replica_id = :id", id=members[0])
    service = stage.rows("SELECT arguments->>'gang' AS gang FROM tasks WHERE id = :id", id=task.id)[0].gang
    gangs.take(stage.ctx, service, task.id, "dead/worker/1/1.0")
    assert stage.states(members) == ["scheduling"] * 3
    # nobody holds them, and a host that they are not bound to cannot take them
    assert stage.claim("small") is None
    claims = stage.claim_all()
    assert sorted(claim.replica_id for claim in claims) == sorted(members)
    assert all(claim.claims <= launches.MAX_CLAIMS for claim in claims)


def test_after_all_were_ready_once_each_goes_by_itself(stage: Stage) -> None:
    service, members = stage.gang(2, gpus=2)
    claims = stage.claim_all()
    stage.rows("UPDATE services SET good_revision = 1 WHERE id = :id", id=service)
    for claim in claims:
        stage.gone(claim)
    stage.create(gpus=2)
    assert stage.claim()
    replacement = stage.member(service, 0, gpus=2)
    found = stage.claim()
    assert found is not None
    assert found.replica_id == replacement
    assert members[0] != replacement


def test_a_member_that_is_restarted_waits_for_nobody(stage: Stage) -> None:
    _, members = stage.gang(2, gpus=1)
    claims = stage.claim_all()
    for claim in claims:
        stage.gone(claim)
    request_restart(stage.ctx, stage.actor, members[0])
    found = stage.claim()
    assert found is not None
    assert (found.replica_id, found.kind) == (members[0], "restart")


def test_a_gang_of_a_pool_that_counts_gpus_itself(stage: Stage) -> None:
    pool = stage.add_pool(backend="mock", gpus=4)
    _, greedy = stage.gang(3, gpus=2, pool=pool)
    _, members = stage.gang(2, gpus=2, pool=pool)
    claims = stage.claim_all(pool=pool)
    assert sorted(claim.replica_id for claim in claims) == sorted(members)
    assert stage.states(greedy) == ["failed"] * 3
    assert len(set(stage.held(members)["pool_gpu"])) == 4
