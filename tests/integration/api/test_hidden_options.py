"""What only admins set is shown to who may operate: others see neither the options nor texts that name them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from app.usecases import launch_claims
from app.usecases.context import Context
from app.usecases.hidden_options import NOT_SHOWN
from tests.integration.api.conftest import Caller
from tests.support.backends import publish
from workers.backends.docker import DockerBackend
from workers.backends.slurm import SlurmBackend

LOGIN, FOLDER = "alice@login7.example", "/project/p200/hostler"
OPTIONS = {"ssh": {"host": LOGIN, "config": "/home/alice/.ssh/special"}, "folder": FOLDER, "partition": "gpu"}
WORDS = f"{LOGIN} cannot be reached: ssh: connect to host 10.9.8.7 port 22: Connection refused"
HIDDEN = (LOGIN, "login7.example", FOLDER, "/home/alice", "10.9.8.7", "ssh -F")


@pytest.fixture
def replica_id(admin: Caller, ctx: Context) -> str:
    """A replica in a pool behind SSH, of which its backend told in words that name the login."""
    publish(ctx, SlurmBackend)
    made = admin.post("/api/v1/pools", {"name": "far", "backend": "slurm", "slots": 4, "options": OPTIONS})
    assert made.status_code == 201, made.get_json()
    create = {"server_mode": "replica_mock", "model_name": "m", "pool": "far", "wait_for_ready": False}
    own = {"backend_options": {"nice": 3, "network": "10.3.0.0/16"}}
    asked = admin.post("/api/v1/replicas", create | {"replica_config": own})
    assert asked.status_code == 202, asked.get_json()
    found: str = asked.get_json()["replica_id"]
    told = {"job_id": "77", "state": "PENDING", "why": "Resources", "command": f"ssh -F x {LOGIN} squeue -j 77"}
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend, launching_at, backend_ref, message,"
                " stop_trouble, told, job_id) VALUES (:id, 1, 'a-' || :id, 'far', 'slurm', hostler_now(),"
                " CAST(:ref AS jsonb), :words, :words, CAST(:told AS jsonb), '77')"
            ),
            {"id": found, "ref": json.dumps({"folder": FOLDER}), "words": WORDS, "told": json.dumps(told)},
        )
        told_too = {"id": found, "words": WORDS}
        connection.execute(text("UPDATE tasks SET message = :words WHERE replica_id = :id"), told_too)
        connection.execute(text("UPDATE replicas SET attempt = 1, message = :words WHERE id = :id"), told_too)
        connection.execute(
            text(
                "INSERT INTO events (kind, actor, cause, replica_id, pool, message, data)"
                " VALUES ('transition', 'hostler', 'sweep', :id, 'far', :words, CAST(:data AS jsonb))"
            ),
            {"id": found, "words": WORDS, "data": json.dumps({"message": WORDS})},
        )
    return found


def paths(replica_id: str, task_id: str) -> list[str]:
    return [
        "/api/v1/pools",
        "/api/v1/pools/far",
        "/api/v1/replicas",
        f"/api/v1/replicas/{replica_id}",
        f"/api/v1/replicas/{replica_id}/explain",
        f"/api/v1/replicas/{replica_id}/events",
        "/api/v1/events",
        "/api/v1/tasks",
        f"/api/v1/tasks/{task_id}",
    ]


def test_roles_that_may_not_operate_see_none_of_it(
    admin: Caller, caller: Callable[[str], Caller], replica_id: str
) -> None:
    task_id = admin.get(f"/api/v1/tasks?replica_id={replica_id}").get_json()["tasks"][0]["id"]
    reader, operator = caller("read"), caller("operate")
    for path in paths(replica_id, task_id):
        told = reader.get(path)
        assert told.status_code == 200, path
        assert [word for word in HIDDEN if word in told.text] == [], path
        assert operator.get(path).get_json() == admin.get(path).get_json()
        assert told.headers.get("ETag") != operator.get(path).headers.get("ETag") or "ETag" not in told.headers, path
    assert all(any(word in operator.get(path).text for path in paths(replica_id, task_id)) for word in (LOGIN, FOLDER))


def test_what_is_left_is_whole(caller: Callable[[str], Caller], replica_id: str) -> None:
    reader = caller("read")
    pool = reader.get("/api/v1/pools/far").get_json()
    assert (pool["name"], pool["options"]) == ("far", {"partition": "gpu"})
    replica = reader.get(f"/api/v1/replicas/{replica_id}").get_json()
    assert replica["spec"]["replica_config"]["backend_options"] == {"nice": 3}
    assert (replica["message"], replica["backend_ref"], replica["job_id"]) == (NOT_SHOWN, None, "77")
    assert replica["cluster"] == {"job_id": "77", "state": "PENDING", "why": "Resources", "command": NOT_SHOWN}
    assert replica["pool"] == "far"


def test_the_stream_of_events_hides_as_well(caller: Callable[[str], Caller], replica_id: str) -> None:
    def first(who: Caller) -> dict[str, Any]:
        answer = who.client.get(
            "/api/v1/events?kind=transition",
            headers={"X-API-Key": who.key, "Accept": "text/event-stream", "Last-Event-ID": "0-0"},
            buffered=False,
        )
        try:
            for chunk in answer.response:
                text_of = chunk.decode() if isinstance(chunk, bytes) else chunk
                for line in text_of.splitlines():
                    if (line.startswith("data: ") and "10.9.8.7" in line) or NOT_SHOWN in line:
                        return dict(json.loads(line.removeprefix("data: ")))
        finally:
            answer.close()
        raise AssertionError("the stream ended")

    assert first(caller("operate"))["message"] == WORDS
    shown = first(caller("read"))
    assert (shown["message"], shown["data"]["message"]) == (NOT_SHOWN, NOT_SHOWN)


def test_of_a_replica_whose_pool_was_changed_since(
    admin: Caller, caller: Callable[[str], Caller], replica_id: str
) -> None:
    changed = admin("PATCH", "/api/v1/pools/far", {"options": {"partition": "gpu"}})
    assert changed.status_code == 200
    reader = caller("read")
    for path in (f"/api/v1/replicas/{replica_id}", "/api/v1/events", f"/api/v1/replicas/{replica_id}/explain"):
        assert [word for word in HIDDEN if word in reader.get(path).text] == [], path


def test_of_a_replica_that_was_launched_elsewhere_before_or_deleted(
    admin: Caller, caller: Callable[[str], Caller], ctx: Context, replica_id: str
) -> None:
    assert admin("PATCH", "/api/v1/pools/far", {"options": {"partition": "gpu"}}).status_code == 200
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE attempts SET launching_at = NULL, released_at = hostler_now()"))
        moved = {"id": replica_id, "attempt": 1, "options": json.dumps({"ssh": {"host": "login8.example"}})}
        assert connection.execute(launch_claims._TAKE_PLACE, moved).first() is not None
    reader = caller("read")
    for path in (f"/api/v1/replicas/{replica_id}", "/api/v1/events", f"/api/v1/replicas/{replica_id}/explain"):
        assert [word for word in HIDDEN if word in reader.get(path).text] == [], path
    with ctx.database.begin() as connection:
        stopped = text("UPDATE replicas SET state = 'stopped', released_at = hostler_now() WHERE id = :id")
        connection.execute(stopped, {"id": replica_id})
    assert admin("DELETE", f"/api/v1/replicas/{replica_id}").status_code == 204
    assert "login8.example" in admin.get("/api/v1/events").text
    told = reader.get("/api/v1/events").text
    assert [word for word in (*HIDDEN, "login8.example") if word in told] == []


def test_folders_that_a_pool_of_containers_mounts(admin: Caller, caller: Callable[[str], Caller], ctx: Context) -> None:
    publish(ctx, DockerBackend)
    options = {"image": "i", "mounts": [{"source": "/srv/models"}], "allowed_mounts": [{"source": "/srv"}]}
    made = admin.post("/api/v1/pools", {"name": "pods", "backend": "docker", "slots": 1, "options": options})
    assert made.status_code == 201, made.get_json()
    assert caller("operate").get("/api/v1/pools/pods").get_json()["options"] == options
    assert caller("read").get("/api/v1/pools/pods").get_json()["options"] == {}


def test_errors_hide_it_too(admin: Caller, caller: Callable[[str], Caller], ctx: Context, replica_id: str) -> None:
    made = admin.post("/api/v1/services", {"recipe_name": "inference/mock", "name": "web", "pool": "far"})
    assert made.status_code in (201, 202), made.get_json()
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replicas SET message = :words, state = 'unhealthy', base_url = 'http://127.0.0.1:9' WHERE id IN"
                " (SELECT replica_id FROM service_members)"
            ),
            {"words": WORDS},
        )
    told = {role: caller(role).post("/api/v1/vllm/web/prompt", {"prompt": "x"}) for role in ("infer", "operate")}
    assert {role: answer.status_code for role, answer in told.items()} == {"infer": 503, "operate": 503}
    assert LOGIN in told["operate"].text
    assert [word for word in HIDDEN if word in told["infer"].text] == []
    assert told["infer"].get_json()["code"] == told["operate"].get_json()["code"]
