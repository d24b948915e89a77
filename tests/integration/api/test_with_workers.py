"""The seed's requests against workers that run: a replica is made, checked, restarted, stopped, forgotten."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator

import pytest

from app import create_app
from app.engines.tiny_model import write_tiny_gguf
from app.settings import Settings
from app.usecases import keys
from tests.integration.api.conftest import Caller
from tests.integration.api.test_events import SSE, messages
from tests.integration.api.test_replicas import SEED
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database, wait_until
from tests.support.problems import assert_problem

CREATE = {"server_mode": "replica_mock", "model_name": "any"}


@pytest.fixture(scope="module")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("api-crew")
    with (
        fresh_database(parts, migrated) as url,
        running_crew(crew_settings(parts, url, folder, max_wait_s=60.0), folder) as crew,
    ):
        yield crew


@pytest.fixture(scope="module")
def user(crew: Crew) -> Iterator[Caller]:
    key = f"user-{secrets.token_hex(16)}"
    keys.ensure_admin_key(crew.settings, key)
    app = create_app(crew.settings)
    yield Caller(app.test_client(), key)
    app.extensions["hostler"].close()


def end(user: Caller, path: str) -> None:
    stopped = user.post(f"{path}/stop", {"force": True}, Prefer="wait=30")
    assert stopped.status_code == 200, stopped.get_json()
    assert stopped.get_json()["status"] == "stopped"
    wait_until(lambda: user("DELETE", path).status_code == 204, 20, "the replica to be forgotten")
    assert_problem(user.get(path), 404, "not_found")


def test_the_whole_life_of_a_replica(user: Caller) -> None:
    made = user.post("/api/v1/replicas", CREATE)
    assert made.status_code == 201, made.get_json()
    body = made.get_json()
    path = made.headers["Location"]
    assert body["status"] == "ready"
    assert body["message"] == f"Replica {body['replica_id']} created successfully"
    assert body["base_url"].startswith("http://")
    shown = user.get(path).get_json()
    assert {check["name"]: check["ok"] for check in shown["diagnostics"]["checks"]}
    assert {"pending", "scheduling", "ready"} <= set(shown["timestamps"])

    healthy = user.post(f"{path}/health", {"timeout_s": 20, "poll_interval_s": 0.2}, Prefer="wait=30")
    assert healthy.status_code == 200, healthy.get_json()
    found = healthy.get_json()
    assert found["healthy"] is True
    assert found["checks"]
    assert found["base_url"] == body["base_url"]
    assert user.post(f"{path}/health").status_code == 202

    diagnosed = user.post(f"{path}/diagnose", Prefer="wait=30")
    assert diagnosed.status_code == 200, diagnosed.get_json()
    assert user.get(f"{path}/logs").mimetype == "text/plain"
    assert user.get(f"{path}/explain").get_json()["status"] == "ready"

    again = user.post(f"{path}/restart", Prefer="wait=30")
    assert again.status_code == 200, again.get_json()
    assert (again.get_json()["attempt"], again.get_json()["status"]) == (2, "ready")
    states = [event["to_state"] for event in user.get(f"{path}/events").get_json()["events"] if event["to_state"]]
    assert states.count("ready") == 2
    end(user, path)
    assert_problem(user.post(f"{path}/health"), 404, "not_found")


def test_the_seeds_request_as_written_but_for_the_weights(user: Caller, crew: Crew) -> None:
    write_tiny_gguf(crew.settings.models_dir / "weights.gguf")
    model = {"name": "llama3.1-8b", "engine": "llama-cpp", "source": "weights.gguf"}
    assert user.post("/api/v1/models", model).status_code == 201
    # a pool made now is served within seconds
    assert user.post("/api/v1/pools", {"name": "dh1", "backend": "process", "slots": 2}).status_code == 201
    made = user.post("/api/v1/replicas", SEED | {"server_mode": "replica"})
    assert made.status_code == 201, made.get_json()
    path = made.headers["Location"]
    logs = user.get(f"{path}/logs?tail=5").get_data(as_text=True)
    assert len(logs.splitlines()) <= 5
    shown = user.get(path).get_json()
    assert (shown["pool"], shown["engine"]) == ("dh1", "llama-cpp")
    end(user, path)


def test_a_failed_launch_is_502_with_its_reason(user: Caller) -> None:
    bad = CREATE | {"pool": "mock", "replica_config": {"backend_options": {"fail_launch": 10}}}
    answer = user.post("/api/v1/replicas", bad)
    body = assert_problem(answer, 502, "replica_failed")
    assert body["reason"] in ("launch_failed", "backend_error")
    assert body["replica_id"] in body["detail"]


def test_events_stream_while_a_replica_comes_up(user: Caller) -> None:
    stream = user.get("/api/v1/events?kind=transition", **SSE)
    seen: list[str] = []

    def watch() -> None:
        for message in messages(stream):
            seen.append(message.get("to_state") or "")
            if message.get("to_state") == "ready":
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = user.post("/api/v1/replicas", CREATE | {"pool": "mock"})
    assert made.status_code == 201, made.get_json()
    watcher.join(20)
    stream.close()
    assert [state for state in seen if state] == [
        "pending",
        "scheduling",
        "preparing",
        "starting",
        "waiting_for_ready",
        "ready",
    ]
    end(user, made.headers["Location"])


def test_logs_can_be_followed_to_the_end(user: Caller) -> None:
    made = user.post("/api/v1/replicas", CREATE)
    assert made.status_code == 201, made.get_json()
    path = made.headers["Location"]
    followed = user.get(f"{path}/logs?follow=true")
    assert followed.mimetype == "text/event-stream"
    threading.Timer(0.5, lambda: user.post(f"{path}/stop")).start()
    blocks = "".join(one if isinstance(one, str) else one.decode() for one in followed.response)
    assert "event: log" in blocks
    assert "event: end" in blocks
    assert blocks.rstrip().endswith("data:")
    end(user, path)


def test_health_is_healthy_with_everything_up(user: Caller) -> None:
    wait_until(lambda: user.get("/health").get_json()["status"] == "healthy", 30, str(user.get("/health").get_json()))
    assert user.get("/health").get_json()["workers_idle"] >= 1
    (node,) = user.get("/api/v1/nodes").get_json()["nodes"]
    assert node["state"] == "up"
    assert {worker["role"] for worker in node["workers"]} == {"worker", "worker-control", "agent"}
    assert len(node["gpus"]) == 4
