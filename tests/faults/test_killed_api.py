"""The API is killed around the commit of a create: what was accepted happens, and asking again changes nothing."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.usecases import keys
from tests.faults.harness.injection import FOLDER
from tests.faults.stepper import POOL
from tests.support.crew import ROOT, Crew
from tests.support.embedded import wait_until


@dataclass
class Api:
    """An API whose processes die at a failpoint of the harness."""

    crew: Crew
    key: str
    points: Path

    def arm(self, point: str) -> None:
        order = {"signal": 9, "role": "web", "line": None, "token": secrets.token_hex(4)}
        (self.points / "armed" / point).write_text(json.dumps(order))

    def fired(self, point: str) -> bool:
        return (self.points / "fired" / point).exists()

    def post(self, path: str, body: dict[str, Any], key: str) -> httpx2.Response:
        headers = {"X-API-Key": self.key, "Idempotency-Key": key}
        return self.crew.ask_web("POST", path, json=body, headers=headers)

    def answers(self) -> bool:
        try:
            self.crew.ask_web("GET", "/health")
        except httpx2.TransportError:
            return False
        return True


@pytest.fixture(scope="module")
def api(crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("points")
    for name in ("armed", "fired", "starts"):
        (folder / name).mkdir()
    (folder / "sitecustomize.py").write_text("from tests.faults.harness.injection import begin\n\nbegin()\n")
    key = f"api-{secrets.token_hex(16)}"
    keys.ensure_admin_key(crew.settings, key)
    made = Api(crew, key, folder)
    environ = {"PYTHONPATH": f"{folder}:{ROOT}", FOLDER: str(folder), "HOSTLER_ROLE": "web"}
    crew.start("web", **environ)
    wait_until(made.answers, 30, f"the API:\n{crew.log('web')}")
    yield made
    crew.kill("web")


@pytest.mark.parametrize(
    "point, happened",
    [("create.commit.before", False), ("create.commit.after", True), ("ring.before", True), ("notify.before", True)],
)
def test_a_create_is_sent_again_after_the_api_died_over_it(api: Api, point: str, happened: bool) -> None:
    """Between commit and ring nobody was told: the sweep finds it, and the same key gets the same replica."""
    crew, key = api.crew, secrets.token_hex(8)
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": POOL, "wait_for_ready": False}
    api.arm(point)
    with pytest.raises(httpx2.TransportError):
        api.post("/api/v1/replicas", body, key)
    assert api.fired(point)
    before = _of(crew, key)
    assert bool(before) == happened
    wait_until(api.answers, 30, "another process of the API")
    if happened:
        # nobody asks again, and it is done all the same
        crew.await_ready(before[0])
    again = api.post("/api/v1/replicas", body, key)
    assert again.status_code in (200, 201, 202), again.text
    replica = again.json()["replica_id"]
    assert _of(crew, key) == [replica]
    assert before in ([], [replica])
    crew.await_ready(replica)
    assert (crew.starts(replica), len(crew.engines(replica))) == (1, 1)
    assert [task.kind for task in crew.tasks(replica)] == ["create"]
    crew.end(replica)


@pytest.mark.parametrize("point", ["change.commit.before", "change.commit.after", "ring.before"])
def test_a_stop_is_sent_again_after_the_api_died_over_it(api: Api, point: str) -> None:
    crew, key = api.crew, secrets.token_hex(8)
    replica = crew.create(pool=POOL, run_diagnostics=False)
    crew.await_ready(replica)
    api.arm(point)
    with pytest.raises(httpx2.TransportError):
        api.post(f"/api/v1/replicas/{replica}/stop", {}, key)
    assert api.fired(point)
    wait_until(api.answers, 30, "another process of the API")
    if not point.endswith("before") or point.startswith("ring"):
        crew.await_released(replica)
    again = api.post(f"/api/v1/replicas/{replica}/stop", {}, key)
    assert again.status_code in (200, 202), again.text
    assert crew.await_released(replica).state == "stopped"
    assert [task.kind for task in crew.tasks(replica)] == ["create", "stop"]
    assert crew.engines(replica) == []


def _of(crew: Crew, key: str) -> list[str]:
    """The replicas that were made for an Idempotency-Key."""
    query = "SELECT outcome->>'replica_id' FROM idempotency WHERE key = :key"
    made = {row[0] for row in crew.rows(query, key=key)}
    found = {row.id for row in crew.rows("SELECT id FROM replicas WHERE id = ANY(:ids)", ids=list(made))}
    assert made == found, "an outcome without its replica"
    return sorted(found)
