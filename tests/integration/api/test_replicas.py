"""Replicas and tasks through the API while no worker runs: what is accepted, refused, replayed and waited for."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.integration.api.test_conventions import POOL
from tests.integration.api.test_events import SSE, messages
from tests.support.problems import assert_problem

CREATE = {"server_mode": "replica_mock", "model_name": "any", "pool": "mock", "wait_for_ready": False}
SEED = {
    "server_mode": "replica_mock",
    "model_name": "llama3.1-8b",
    "full_config": {
        "model": {"pipeline": {"num_csx": 1}},
        "runconfig": {"job_labels": [], "job_priority": "p2"},
        "api_config": {},
    },
    "placement": {"multibox": "dh1", "usernode": "usernode-01", "namespace": "inf-integ", "app_tag": "my-app"},
    "replica_config": {"replica_config": {"max_batch_size": 32}, "api_config": {"timeout": 120}},
    "job": {"job_priority": "p2", "job_timeout_s": 86400},
    "wait_for_ready": True,
    "run_diagnostics": True,
}


def end_task(ctx: Context, task_id: str, state: str, replica_state: str, reason: str | None) -> None:
    """What a worker would write, without one."""
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "UPDATE replicas SET state = :replica_state, reason = :reason, message = 'as told'"
                " WHERE id = (SELECT replica_id FROM tasks WHERE id = :id)"
            ),
            {"id": task_id, "replica_state": replica_state, "reason": reason},
        )
        connection.execute(
            text(
                "UPDATE tasks SET state = :state, phase = 'done', reason = :reason, finished_at = hostler_now(),"
                " message = 'as told' WHERE id = :id"
            ),
            {"id": task_id, "state": state, "reason": reason},
        )
    ctx.notify(f"task:{task_id}")


def test_accepted_work_says_where_to_look(admin: Caller) -> None:
    answer = admin.post("/api/v1/replicas", CREATE)
    assert answer.status_code == 202
    body = answer.get_json()
    assert re.fullmatch("[0-9a-f]{12}", body["replica_id"])
    assert (body["status"], body["base_url"]) == ("pending", None)
    assert answer.headers["Location"] == f"/api/v1/replicas/{body['replica_id']}"
    assert answer.headers["Link"] == f'<{body["task_url"]}>; rel="monitor"'
    assert int(answer.headers["Retry-After"]) >= 1
    shown = admin.get(answer.headers["Location"])
    assert shown.headers["ETag"]
    assert shown.get_json()["status"] == "pending"
    task = admin.get(body["task_url"]).get_json()
    assert (task["kind"], task["state"], task["replica_id"]) == ("create", "queued", body["replica_id"])
    explained = admin.get(f"{answer.headers['Location']}/explain").get_json()
    assert explained["position"] == 1
    assert explained["command"]
    (first,) = admin.get(f"{answer.headers['Location']}/events").get_json()["events"]
    assert (first["from_state"], first["to_state"], first["actor"]) == (None, "pending", "admin")
    assert admin.get(f"{answer.headers['Location']}/logs").get_data() == b""


def test_the_request_id_reaches_the_records(admin: Caller) -> None:
    made = admin.post("/api/v1/replicas", CREATE, X_Request_Id="from-header").get_json()
    assert admin.get(made["task_url"]).get_json()["request_id"] == "from-header"
    answer = admin.post("/api/v1/replicas", CREATE | {"request_id": "from-body"})
    assert answer.headers["X-Request-Id"] == "from-body"
    assert admin.get(answer.get_json()["task_url"]).get_json()["request_id"] == "from-body"


def test_the_seeds_request_waits_as_long_as_it_may(admin: Caller) -> None:
    assert admin.post("/api/v1/pools", POOL).status_code == 201
    started = time.monotonic()
    answer = admin.post("/api/v1/replicas", SEED)
    assert answer.status_code == 202, answer.get_json()
    assert 1.5 < time.monotonic() - started < 10
    shown = admin.get(answer.headers["Location"]).get_json()
    assert shown["pool"] == "dh1"
    assert {"usernode": "usernode-01", "namespace": "inf-integ", "app_tag": "my-app"}.items() <= shown["labels"].items()
    assert [one["replica_id"] for one in admin.get("/api/v1/replicas?label=app_tag=my-app").get_json()["replicas"]] == [
        shown["replica_id"]
    ]


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async", "respond-async, wait=0", "handling=lenient; wait=0"])
def test_prefer_ends_the_wait(admin: Caller, prefer: str) -> None:
    started = time.monotonic()
    answer = admin.post("/api/v1/replicas", CREATE | {"wait_for_ready": True}, Prefer=prefer)
    assert answer.status_code == 202
    assert time.monotonic() - started < 1.5


@pytest.mark.parametrize(
    "state, replica_state, reason, status",
    [
        ("succeeded", "ready", None, 201),
        ("failed", "failed", "launch_failed", 502),
        ("cancelled", "stopped", None, 502),
    ],
)
def test_the_wait_sees_the_end(
    admin: Caller, ctx: Context, state: str, replica_state: str, reason: str | None, status: int
) -> None:
    body = CREATE | {"wait_for_ready": True}

    def worker() -> None:
        while not (found := admin_tasks(ctx)):
            time.sleep(0.01)
        end_task(ctx, found[0], state, replica_state, reason)

    thread = threading.Thread(target=worker)
    thread.start()
    answer = admin.post("/api/v1/replicas", body, Idempotency_Key="wait")
    thread.join()
    assert answer.status_code == status, answer.get_json()
    if status == 201:
        assert answer.get_json()["message"].endswith("created successfully")
        assert answer.get_json()["status"] == "ready"
    else:
        problem = assert_problem(answer, 502, "replica_failed")
        assert problem["reason"] == (reason or "cancelled")
        assert problem["replica_id"] in problem["detail"]
    # a replay is built from the resource and joins the wait that is over
    again = admin.post("/api/v1/replicas", body, Idempotency_Key="wait")
    assert again.status_code == status
    if status == 201:
        assert again.headers["Idempotency-Replayed"] == "true"


def admin_tasks(ctx: Context) -> list[str]:
    with ctx.database.read() as connection:
        return list(connection.execute(text("SELECT id FROM tasks")).scalars())


def test_the_same_create_sent_at_once_is_one_replica(admin: Caller, web) -> None:  # type: ignore[no-untyped-def]
    def send(_: int) -> tuple[int, str]:
        caller = Caller(web.test_client(), admin.key)
        while True:
            answer = caller.post("/api/v1/replicas", CREATE, Idempotency_Key="same")
            if answer.status_code != 409:
                return answer.status_code, answer.get_json()["replica_id"]

    with ThreadPoolExecutor(8) as threads:
        found = set(threads.map(send, range(16)))
    assert len(found) == 1
    assert found.pop()[0] == 202
    assert admin.get("/api/v1/replicas").get_json()["total"] == 1


def test_the_order_of_checks(admin: Caller) -> None:
    path = "/api/v1/replicas"
    body = assert_problem(admin.post(path, {"server_mode": "platform_workload", "labels": 7}), 400, "missing_fields")
    assert set(body["errors"]) == {"model_name", "platform_config"}
    both = CREATE | {"pool": "a", "placement": {"multibox": "b"}, "labels": 7}
    assert_problem(admin.post(path, both), 400, "contradicting_options")
    assert_problem(admin.post(path, CREATE | {"labels": 7, "pool": "nope"}), 422, "invalid_config")
    near = assert_problem(admin.post(path, CREATE | {"pool": "mok"}), 422, "unknown_pool")
    assert "mock" in near["detail"]
    assert "hostler pool list" in near["detail"]
    assert_problem(admin.post(path, CREATE | {"server_mode": "replica"}), 422, "unknown_model")
    same = CREATE | {"placement": {"multibox": "mock"}}
    assert admin.post(path, same).status_code == 202


@pytest.mark.parametrize(
    "change",
    [
        {"server_mode": "replika"},
        {"model_name": ""},
        {"model_name": None},
        {"job": {"job_priority": "p9"}},
        {"job": {"job_timeout_s": 0}},
        {"job": {"job_timeout_s": 10**18}},
        {"timeouts": {"readiness_timeout_s": -1}},
        {"timeouts": {"readiness_timeout_s": "10"}},
        {"timeouts": {"redyness_timeout_s": 10}},
        {"environment": {"A B": "c"}},
        {"environment": {"A": 1}},
        {"labels": {"": "x"}},
        {"labels": {"a": "x" * 300}},
        {"wait_for_ready": "yes"},
        {"replica_config": []},
        {"replica_config": {"replica_config": "x"}},
        {"replica_config": {"replica_config": [1]}},
        {"replica_config": {"backend_options": "x"}},
        {"replica_config": {"backend_options": [[1, 2]]}},
        {"replica_config": {"mock": 7}},
        {"replica_config": {"mock": {"tokens_per_s": "many"}}},
        {"resources": {"gpus": -1}},
        {"resources": {"gpus": "x"}},
        {"request_id": "sp ace"},
        {"placement": "mock"},
    ],
)
def test_what_the_schema_refuses(admin: Caller, change: dict) -> None:
    assert_problem(admin.post("/api/v1/replicas", CREATE | change), 422, "invalid_config")


def test_dry_run_changes_nothing(admin: Caller) -> None:
    answer = admin.post(
        "/api/v1/replicas", CREATE | {"dry_run": True, "wait_for_ready": True, "environment": {"HF_TOKEN": "hunter2"}}
    )
    assert answer.status_code == 200, answer.get_json()
    assert answer.get_json()["argv"]
    assert "hunter2" not in answer.get_data(as_text=True)
    assert admin.get("/api/v1/replicas").get_json()["total"] == 0


def test_stop_cancels_an_open_create(admin: Caller) -> None:
    made = admin.post("/api/v1/replicas", CREATE).get_json()
    path = f"/api/v1/replicas/{made['replica_id']}"
    assert_problem(admin("DELETE", path), 409, "conflict")
    stopped = admin.post(f"{path}/stop")
    assert stopped.status_code in (200, 202), stopped.get_json()
    assert admin.get(made["task_url"]).get_json()["state"] == "cancelled"
    assert admin.get(path).get_json()["status"] in ("stopping", "stopped")
    again = admin.post(f"{path}/stop", {"force": True, "grace_s": 0})
    assert again.status_code in (200, 202)


def test_nothing_is_known_of_unknown_ids(admin: Caller) -> None:
    for replica_id in ("0" * 12, "nonsense", "A" * 12, "%00"):
        path = f"/api/v1/replicas/{replica_id}"
        for method, rest in (
            ("GET", ""),
            ("DELETE", ""),
            ("GET", "/logs"),
            ("GET", "/logs?follow=true"),
            ("GET", "/events"),
            ("GET", "/explain"),
            ("POST", "/stop"),
            ("POST", "/restart"),
            ("POST", "/health"),
            ("POST", "/diagnose"),
        ):
            answer = admin(method, path + rest)
            assert answer.status_code in (404, 400), (method, path + rest)
            assert answer.mimetype == "application/problem+json"
    for path in ("/api/v1/tasks/x", "/api/v1/tasks/x?wait=1", "/api/v1/tasks/x/events"):
        assert_problem(admin.get(path), 404, "not_found")
    assert_problem(admin.post("/api/v1/tasks/x/cancel"), 404, "not_found")


def test_a_task_can_be_waited_for_and_followed(admin: Caller, ctx: Context) -> None:
    made = admin.post("/api/v1/replicas", CREATE).get_json()
    started = time.monotonic()
    assert admin.get(f"{made['task_url']}?wait=0.5").get_json()["state"] == "queued"
    assert time.monotonic() - started >= 0.5
    followed = admin.get(f"{made['task_url']}/events")
    assert followed.mimetype == "text/event-stream"
    timer = threading.Timer(0.3, end_task, (ctx, made["task_id"], "succeeded", "ready", None))
    timer.start()
    assert admin.get(f"{made['task_url']}?wait=2").get_json()["state"] == "succeeded"
    timer.join()
    blocks = "".join(one if isinstance(one, str) else one.decode() for one in followed.response)
    followed.close()
    assert "event: transition" in blocks
    assert blocks.rstrip().split("\n")[-2] == "event: end"
    listed = admin.get(f"{made['task_url']}/events", Accept="application/json").get_json()
    assert [event["to_state"] for event in listed["events"]] == ["pending"]


def test_a_task_can_be_cancelled(admin: Caller) -> None:
    made = admin.post("/api/v1/replicas", CREATE).get_json()
    answer = admin.post(f"{made['task_url']}/cancel")
    assert answer.status_code == 200
    assert answer.get_json()["state"] == "cancelled"


def test_replica_events_can_be_followed(admin: Caller) -> None:
    made = admin.post("/api/v1/replicas", CREATE).get_json()
    answer = admin.get(f"/api/v1/replicas/{made['replica_id']}/events", **SSE)
    first = next(message for message in messages(answer) if message)
    answer.close()
    assert first["to_state"] == "pending"


def test_lists_filter_and_page(admin: Caller) -> None:
    ids = [
        admin.post("/api/v1/replicas", CREATE | {"labels": {"n": str(n)}}).get_json()["replica_id"] for n in range(5)
    ]
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = admin.get("/api/v1/replicas?limit=2" + (f"&cursor={cursor}" if cursor else "")).get_json()
        assert body["total"] == 5
        found += [one["replica_id"] for one in body["replicas"]]
        cursor = body["next_cursor"]
    assert found == ids[::-1]
    assert admin.get("/api/v1/replicas?status=ready").get_json()["total"] == 0
    assert admin.get("/api/v1/replicas?label=n=3").get_json()["replicas"][0]["replica_id"] == ids[3]
    assert admin.get("/api/v1/tasks?kind=create&limit=1").get_json()["total"] == 5
    assert_problem(admin.get("/api/v1/replicas?status=redy"), 422, "invalid_config")
    assert_problem(admin.get("/api/v1/replicas?stauts=ready"), 422, "invalid_config")
    assert_problem(admin.get("/api/v1/replicas?cursor=WzFd"), 422, "invalid_config")


def test_a_replicas_own_options_are_checked_by_its_backend(admin: Caller, ctx: Context) -> None:
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                'UPDATE backends SET options_schema = \'{"additionalProperties": false,'
                ' "properties": {"delay_s": {"type": "number"}}}\' WHERE name = \'mock\''
            )
        )
    own = {"backend_options": {"dely_s": 1}}
    body = assert_problem(admin.post("/api/v1/replicas", CREATE | {"replica_config": own}), 422, "invalid_config")
    assert list(body["errors"]) == ["replica_config.backend_options.dely_s"]
    own = {"backend_options": {"delay_s": 1}}
    assert admin.post("/api/v1/replicas", CREATE | {"replica_config": own}).status_code == 202


def test_an_option_that_picks_programs_needs_admin_or_the_pools_own(
    admin: Caller, caller: Callable[[str], Caller], ctx: Context
) -> None:
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                'UPDATE backends SET options_schema = \'{"properties": {"path": {"type": "string", "x-admin": true}}}\''
                " WHERE name = 'mock'"
            )
        )
    wish = CREATE | {"replica_config": {"backend_options": {"path": "/opt/bin"}}}
    operator = caller("operate")
    assert_problem(operator.post("/api/v1/replicas", wish), 403, "forbidden")
    assert admin.post("/api/v1/replicas", wish).status_code == 202
    change = {"defaults": {"replica_config": {"backend_options": {"path": "/opt/bin"}}}}
    assert admin("PATCH", "/api/v1/pools/mock", change).status_code == 200
    assert operator.post("/api/v1/replicas", wish).status_code == 202
