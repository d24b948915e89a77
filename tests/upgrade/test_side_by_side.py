"""Expand, migrate, contract: either version's API and workers on either version's schema, taking over from each other.

A migration that drops, renames or forbids something that the version before uses fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from app.db.migrate import upgrade
from app.settings import Settings
from tests.support.crew import crew_settings, running_crew
from tests.support.embedded import fresh_database
from tests.support.ports import free_port
from tests.upgrade.conftest import run_in
from tests.upgrade.fleet import NEW, OLD, Fleet, make_fleet

HOST = ("worker", "worker-control", "agent")
_MIGRATE = "import sys; from app.db.migrate import upgrade; upgrade(sys.argv[1])"

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["on the new schema", "on the schema before"])
def stages(request: pytest.FixtureRequest) -> list[tuple[str, str]]:
    """(version of the API, version of the workers), in the order in which they take over from each other.

    New schema: migrated under the running version before, then the API, then the workers, then all of it put back.
    Schema before: new workers get there before the migration, are put back, and at last all is new but the schema.
    """
    if request.param == "on the new schema":
        return [(OLD, OLD), (NEW, OLD), (NEW, NEW), (OLD, OLD)]
    return [(OLD, NEW), (OLD, OLD), (NEW, NEW)]


@pytest.fixture
def fleet(
    stages: list[tuple[str, str]], parts: Settings, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    with fresh_database(parts) as url:
        run_in(baseline, _MIGRATE, url)
        settings = crew_settings(parts, url, tmp_path, port=free_port(), web_workers=1)
        pools = {"faults": ("process", 32), "slow": ("mock", 8)}
        with running_crew(settings, tmp_path, roles=(), pools=pools) as crew:
            yield make_fleet(crew, baseline)


def test_what_one_version_began_the_other_carries_on(fleet: Fleet, stages: list[tuple[str, str]]) -> None:
    crew = fleet.crew
    serving, starting, stop = "", "", ""
    before: tuple[str, str] | None = None
    for api, workers in stages:
        if before is None or before[0] != api:
            if before is not None:
                fleet.kill(before[0], "web")
            fleet.start(api, "web")
        if before is None:
            fleet.start(workers, *HOST)
        elif before[1] != workers:
            _both_at_once(fleet, workers, agent_of=before[1])
            engine = crew.engines(serving)
            starting = fleet.create(replica_config={"mock": {"startup_s": 1.5}})
            crew.await_state(starting, "waiting_for_ready")
            fleet.kill(before[1], *HOST)
            stop = fleet.ask(serving, "stop")
            assert crew.engines(serving) == engine, "nobody was there to stop it"
            fleet.start(workers, "agent", "worker-control")
            # what the other version launched
            assert fleet.done(stop)["state"] == "succeeded"
            assert crew.await_released(serving).state == "stopped"
            crew.await_ready(starting)
            assert crew.starts(starting) == 1
            _restarts(fleet, starting)
            crew.end(starting)
        else:
            assert fleet.done(fleet.ask(serving, "stop"))["state"] == "succeeded"
            assert crew.await_released(serving).state == "stopped"
        _every_verb(fleet)
        if before is None and stages[1] == (NEW, OLD):
            upgrade(crew.settings.database_url)
            _every_verb(fleet)
        serving = fleet.create()
        crew.await_ready(serving)
        before = (api, workers)
    crew.end(serving)


def _both_at_once(fleet: Fleet, workers: str, *, agent_of: str) -> None:
    """Workers of both versions on one host, under one agent: none is taken for dead, nothing is done twice."""
    fleet.start(workers, "worker")
    crew = fleet.crew
    made = [fleet.create(pool="slow", replica_config={"backend_options": {"launch_delay_s": 1.2}}) for _ in range(6)]
    for replica in made:
        crew.await_ready(replica)
        [task] = crew.tasks(replica)
        assert (task.state, task.claims) == ("succeeded", 1), f"the agent is of the {agent_of} version\n" + crew.story(
            replica
        )
    crew.end(*made)


def _every_verb(fleet: Fleet) -> None:
    crew = fleet.crew
    replica = fleet.create(run_diagnostics=True, labels={"team": "blue"})
    row = crew.await_ready(replica)
    assert (crew.starts(replica), len(crew.engines(replica))) == (1, 1)
    assert fleet.done(fleet.ask(replica, "health"))["result"]["healthy"]
    assert fleet.done(fleet.ask(replica, "diagnose"))["state"] == "succeeded"
    _restarts(fleet, replica)
    for view in ("", "/logs", "/events", "/explain"):
        fleet.call("GET", f"/api/v1/replicas/{replica}{view}")
    for filtered in ("status=ready", "label=team%3Dblue", "pool=faults"):
        listed = fleet.call("GET", f"/api/v1/replicas?{filtered}")["replicas"]
        assert replica in [one["replica_id"] for one in listed]
    for path in ("/health", "/metrics", "/api/v1/pools", "/api/v1/nodes", "/api/v1/tasks", "/api/v1/events"):
        fleet.call("GET", path)
    stop = fleet.ask(replica, "stop")
    assert fleet.done(stop)["state"] == "succeeded"
    assert crew.await_released(replica).state == "stopped"
    assert crew.engines(replica) == []
    assert row.port is not None
    fleet.call("DELETE", f"/api/v1/replicas/{replica}", expect=(200, 204))
    refused = fleet.create(replica_config={"mock": {"exit_on_start": 3}})
    assert crew.await_released(refused).reason == "process_exited"


def _restarts(fleet: Fleet, replica: str) -> None:
    crew = fleet.crew
    assert fleet.done(fleet.ask(replica, "restart"))["state"] == "succeeded"
    assert crew.await_ready(replica).attempt == 2
    assert (crew.starts(replica, 1), crew.starts(replica, 2)) == (1, 1)
    assert len(crew.engines(replica)) == 1
