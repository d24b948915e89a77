"""What is on the host and not in the database, and the other way round."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from app.usecases import replicas
from tests.support.crew import Crew
from workers.bootstrap import Runtime
from workers.orphans import clear_orphans


def _runtime(crew: Crew, policy: str) -> Runtime:
    """The stack's own agents only report here; what other policies do is done by this test alone."""
    return Runtime(replace(crew.settings, orphans=policy), "test")


@pytest.fixture
def runtime(crew: Crew) -> Iterator[Runtime]:
    runtime = Runtime(crew.settings, "test")
    yield runtime
    runtime.ctx.close()


def test_folders_go_with_their_record_and_not_before(crew: Crew, runtime: Runtime) -> None:
    kept, deleted = crew.create(), crew.create()
    for replica in (kept, deleted):
        crew.await_ready(replica)
    crew.end(kept, deleted)
    replicas.delete(crew.ctx, crew.actor, deleted)
    clear_orphans(runtime)
    assert not crew.attempt_folder(deleted).exists()
    assert (crew.attempt_folder(kept) / "log").exists()


def test_what_runs_and_is_wanted_is_left_alone(crew: Crew, runtime: Runtime) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    before = crew.engines(replica)
    clear_orphans(runtime)
    assert crew.engines(replica) == before
    assert crew.replica(replica).state == "ready"
    crew.end(replica)


def test_what_outlived_its_attempt_is_killed_and_told(crew: Crew, runtime: Runtime) -> None:
    """The record says seen gone, and yet it runs: a descendant that hid, or a defect of ours."""
    replica = crew.create()
    crew.await_ready(replica)
    [engine] = crew.engines(replica)
    crew.end(replica)
    assert not os.path.exists(f"/proc/{engine}")
    name = crew.name(replica)
    late = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": name, "PATH": os.environ["PATH"]})
    try:
        crew.await_that(lambda: late.pid in crew.engines(replica), "the late one to carry its mark")
        clear_orphans(runtime)
        assert late.wait(10) == -signal.SIGKILL
    finally:
        late.kill()
        late.wait()
    # the agent looks too and may have been faster
    assert crew.rows("SELECT 1 FROM events WHERE kind = 'orphan' AND message LIKE :name", name=f"%{name}%")


def test_what_no_record_knows_is_left_to_a_person(crew: Crew, runtime: Runtime) -> None:
    """A database that was put back from a copy has forgotten it; it may well be in use."""
    name = f"hostler-{crew.ctx.namespace}-0123456789ab-1"
    unknown = subprocess.Popen(["sleep", "600"], env={"HOSTLER_MARK": name, "PATH": os.environ["PATH"]})
    try:
        crew.await_that(lambda: unknown.pid in crew.engines("0123456789ab"), "the unknown one to carry its mark")
        clear_orphans(runtime)
        assert unknown.poll() is None
    finally:
        unknown.kill()
        unknown.wait()


def _forget(crew: Crew, replica: str) -> None:
    """As a database that was put back from a copy made before this replica was created."""
    crew.change(
        "WITH held AS (SELECT l.id FROM leases l JOIN attempts a ON a.id = l.attempt_id WHERE a.replica_id = :id),"
        " u AS (UPDATE units SET lease_id = NULL WHERE lease_id IN (SELECT id FROM held))"
        " UPDATE leases SET released_at = hostler_now() WHERE id IN (SELECT id FROM held) AND released_at IS NULL",
        id=replica,
    )
    crew.change("DELETE FROM replicas WHERE id = :id", id=replica)


def _told(crew: Crew, replica: str) -> list[str]:
    return [
        row.message
        for row in crew.rows(
            "SELECT message FROM events WHERE kind = 'orphan' AND message LIKE :name ORDER BY id",
            name=f"%{crew.name(replica)}%",
        )
    ]


def test_a_forgotten_engine_is_reported_once_and_goes_on(crew: Crew, runtime: Runtime) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    before = crew.engines(replica)
    _forget(crew, replica)
    for _ in range(3):
        clear_orphans(runtime)
    assert crew.engines(replica) == before
    [told] = _told(crew, replica)
    assert "left alone" in told
    attributes = crew.rows("SELECT attributes FROM nodes")[0].attributes
    assert crew.name(replica) in attributes["orphans"]
    killer = _runtime(crew, "kill")
    try:
        crew.await_that(lambda: clear_orphans(killer) == 0 and not crew.engines(replica), "it to be killed by policy")
    finally:
        killer.ctx.close()
    assert not crew.attempt_folder(replica).exists()
    assert "orphans" not in crew.rows("SELECT attributes FROM nodes")[0].attributes


def test_a_forgotten_engine_is_adopted_with_its_port_its_gpus_and_its_environment(crew: Crew) -> None:
    replica = crew.create(resources={"gpus": 2}, environment={"MOCK_SECRET": "s3cret"}, labels={"team": "a"})
    before = crew.await_ready(replica)
    leases, engines = crew.leases(replica), crew.engines(replica)
    _forget(crew, replica)
    adopter = _runtime(crew, "adopt")
    try:
        crew.await_that(lambda: clear_orphans(adopter), "the adoption")
        after = crew.await_ready(replica)
        assert clear_orphans(adopter) == 0
    finally:
        adopter.ctx.close()
    assert crew.engines(replica) == engines, "it was not launched again"
    assert crew.starts(replica) == 1
    assert {**crew.leases(replica), "slot": []} == {**leases, "slot": []}
    assert (after.base_url, after.owner, after.labels, after.spec) == (
        before.base_url, before.owner, before.labels, before.spec
    )  # fmt: skip
    assert crew.ctx.unseal(after.environment) == {"MOCK_SECRET": "s3cret"}
    assert any("was adopted" in told for told in _told(crew, replica))
    assert (crew.attempt_folder(replica) / "launch.json").stat().st_mode & 0o777 == 0o600
    crew.end(replica)


def test_what_is_somebody_elses_by_now_is_not_adopted(crew: Crew) -> None:
    replica = crew.create()
    port = crew.await_ready(replica).port
    _forget(crew, replica)
    crew.change("UPDATE units SET retired = true WHERE kind = 'port' AND number = :port", port=port)
    adopter = _runtime(crew, "adopt")
    try:
        clear_orphans(adopter)
        assert crew.rows("SELECT 1 FROM replicas WHERE id = :id", id=replica) == []
        assert len(crew.engines(replica)) == 1
        crew.change("UPDATE units SET retired = false WHERE kind = 'port' AND number = :port", port=port)
        crew.await_that(lambda: clear_orphans(adopter), "the adoption")
        crew.await_ready(replica)
    finally:
        adopter.ctx.close()
    crew.end(replica)
