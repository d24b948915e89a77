"""Rounds over what serves, on the real mock backend: what is as it was costs no write, the rest is judged in full."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.usecases.context import Actor
from tests.support.keys import INSERT_ADMIN
from tests.support.records import Records
from workers.backends.base import Launch
from workers.bootstrap import Runtime
from workers.engine_targets import to_json
from workers.probes.batch import Prober
from workers.rounds import Rounds
from workers.watch import FRESH_S, Watch

COUNT = 24
INTERVAL_S = 5.0


class Host(Records):
    """An agent's rounds, turned by hand, over mocked replicas that are ready."""

    def __init__(self, settings: Settings, prober: Prober) -> None:
        self.runtime = Runtime(settings, "agent")
        super().__init__(settings, self.runtime.ctx, Actor("000000000000", "tester", "admin"))
        self.watch = Watch(self.runtime)
        self.found: list[str] = []
        self.rounds = Rounds(self.watch, prober, self._take, None)

    def _take(self, rows: Sequence[Any]) -> None:
        self.found += [row.id for row in rows]

    def serve(self, number: int) -> str:
        replica, name = f"{number:012x}", f"attempt-{number}"
        handle = self.runtime.backend("mock").launch(Launch(name, replica, 1, ()))
        self.change(
            "WITH r AS (INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority,"
            "  state, spec, last_health, next_check_at, state_since) VALUES (:id, :owner, 'mock', 'mock', 'mock',"
            "  'replica_mock', 'm', 2, 'ready', '{\"resolved\": {\"config\": {}, \"backend_options\": {}}}',"
            '  \'{"healthy": true, "at": "2026-01-01T00:00:00Z"}\', hostler_now(), hostler_now()))'
            " INSERT INTO attempts (replica_id, number, name, pool, backend, backend_ref, launching_at)"
            " VALUES (:id, 1, :name, 'mock', 'mock', CAST(:ref AS jsonb), hostler_now())",
            id=replica,
            owner=self.actor.key_id,
            name=name,
            ref=json.dumps(to_json(handle)),
        )
        return replica

    def pass_time(self) -> None:
        self.change("UPDATE clock SET shift = shift + make_interval(secs => :s)", s=INTERVAL_S)

    def versions(self) -> dict[str, str]:
        """What changes with each write of a row."""
        return {row.id: row.mark for row in self.rows("SELECT id, CAST(xmin AS text) AS mark FROM replicas")}

    def tell(self, replica: str, options: dict[str, object]) -> None:
        """Change what the mock is told of a running attempt; nothing else of its row changes."""
        self.change(
            "UPDATE attempts SET backend_ref = jsonb_set(backend_ref, '{ref,options}', CAST(:o AS jsonb))"
            " WHERE replica_id = :id",
            o=json.dumps(options),
            id=replica,
        )
        self.change("UPDATE replicas SET message = message WHERE id = :id", id=replica)

    def close(self) -> None:
        self.watch.close()
        self.ctx.close()


@pytest.fixture
def host(settings: Settings, tmp_path: Path) -> Iterator[Host]:
    settings = replace(settings, state_dir=tmp_path, node_name="here", probe_interval_s=INTERVAL_S, unhealthy_after=2)
    with Prober() as prober:
        host = Host(settings, prober)
        host.change(INSERT_ADMIN)
        yield host
        host.close()


def settle(host: Host, count: int = COUNT) -> list[str]:
    """Replicas that were looked at until nothing about them was new."""
    replicas = [host.serve(number) for number in range(1, count + 1)]
    for _ in range(2):
        assert host.rounds.turn() == count
        host.pass_time()
    return replicas


def test_all_is_looked_at_and_only_what_is_shown_is_renewed_in_turn(host: Host) -> None:
    replicas = settle(host)
    assert set(host.found) == set(replicas)
    host.found.clear()
    written: list[str] = []
    for _ in range(round(FRESH_S / INTERVAL_S)):
        before = host.versions()
        assert host.rounds.turn() == COUNT
        written += [one for one, mark in host.versions().items() if mark != before[one]]
        host.pass_time()
    assert sorted(written) == sorted(replicas), "each once in as many rounds as a stored probe may grow old"
    assert host.found == [], "nothing was claimed"
    assert len(host.events(replicas[0])) == 0


def test_what_stops_answering_is_judged_in_the_same_round_and_comes_back(host: Host) -> None:
    one, *others = settle(host)
    host.tell(one, {"ready_delay_s": 10_000})
    host.rounds.turn()
    assert (host.replica(one).state, host.replica(one).check_failures) == ("ready", 1)
    host.rounds.turn()
    assert host.replica(one).check_failures == 1, "looks that count lie an interval apart"
    host.pass_time()
    host.rounds.turn()
    assert (host.replica(one).state, host.replica(one).reason) == ("unhealthy", "health_failed")
    host.tell(one, {})
    host.pass_time()
    host.rounds.turn()
    assert (host.replica(one).state, host.replica(one).check_failures) == ("ready", 0)
    assert {host.replica(other).state for other in others} == {"ready"}


def test_a_death_that_nothing_told_of_is_found(host: Host) -> None:
    one, *others = settle(host)
    host.tell(one, {"exit_after_s": 0, "exit_code": 3})
    host.rounds.turn()
    host.await_state(one, "failed")
    assert {host.replica(other).state for other in others} == {"ready"}
    assert host.rounds.turn() == COUNT - 1


def test_what_another_wrote_meanwhile_is_read_anew(host: Host) -> None:
    one, *_ = settle(host)
    host.found.clear()
    host.change("UPDATE replicas SET check_failures = 1, version = version + 1 WHERE id = :id", id=one)
    host.rounds.turn()
    assert host.found == [one]
    assert host.replica(one).check_failures == 0


def test_who_does_not_hold_the_round_looks_at_nothing(host: Host) -> None:
    settle(host)
    host.change("UPDATE sweeps SET worker = 'elsewhere/agent/1/1.0', started_at = hostler_now() WHERE name = 'round'")
    before = host.versions()
    assert host.rounds.turn() == 0
    assert host.versions() == before
    for _ in range(4):
        host.pass_time()
    assert host.rounds.turn() == COUNT, "its holder has fallen silent"


def test_a_silence_that_ended_is_no_reason_to_trust_the_next_one_less(host: Host) -> None:
    """A suspicion that nobody asks about any more must not have outlasted its rounds at the next silence."""
    replicas = settle(host, 4)
    for _ in range(2):
        for one in replicas:
            host.tell(one, {"lose_handle": "unknown"})
        host.pass_time()
        host.rounds.turn()
        assert {host.replica(one).state for one in replicas} == {"ready"}, "nobody acts on the first round of silence"
        for one in replicas:
            host.tell(one, {})
        for _ in range(2):
            host.pass_time()
            host.rounds.turn()
    told = host.rows("SELECT 1 FROM events WHERE kind = 'pool_suspect'")
    assert len(told) == 2
