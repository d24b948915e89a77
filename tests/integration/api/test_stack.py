"""Health, readiness, metrics, documentation and what happens while the database is away."""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
from flask.testing import FlaskClient
from sqlalchemy import text

from app import create_app
from app.settings import Settings
from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.embedded import plain_url
from tests.support.problems import assert_problem


def test_health_names_what_is_missing(anybody: FlaskClient) -> None:
    body = anybody.get("/health").get_json()
    assert set(body) == {
        "status", "version", "replicas_total", "replicas_ready", "workers_idle", "last_sweep_s", "oldest_unclaimed_s",
        "silent_pools", "problems",
    }  # fmt: skip
    assert body["status"] == "degraded"
    assert body["replicas_total"] == 0
    assert any("no worker" in problem for problem in body["problems"])
    assert any("sweep" in problem for problem in body["problems"])


def test_health_is_healthy_when_everything_reports(anybody: FlaskClient, ctx: Context) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name) VALUES ('n')"))
        connection.execute(
            text(
                "INSERT INTO workers (id, node, role, pid, concurrency) SELECT 'n/' || role, 'n', role, 1, 4"
                " FROM unnest(ARRAY['worker', 'worker-control', 'agent']) AS role"
            )
        )
        connection.execute(text("INSERT INTO sweeps (name, tick, worker) VALUES ('s', 1, 'n/agent')"))
    body = anybody.get("/health").get_json()
    assert body["problems"] == []
    assert body["status"] == "healthy"
    assert body["workers_idle"] == 4


def test_silent_nodes_and_old_sweeps_are_problems(anybody: FlaskClient, ctx: Context, admin: Caller) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name, gpus) VALUES ('n', '[{\"index\": 0}]')"))
        connection.execute(text("INSERT INTO sweeps (name, tick, worker) VALUES ('s', 1, 'n/agent')"))
        connection.execute(text("UPDATE clock SET shift = interval '5 minutes'"))
    problems = " ".join(anybody.get("/health").get_json()["problems"])
    assert "node n is silent" in problems
    assert "the last sweep began 300 s ago" in problems
    (node,) = admin.get("/api/v1/nodes").get_json()["nodes"]
    assert (node["name"], node["state"], node["gpus"]) == ("n", "lost", [{"index": 0}])
    assert admin.get("/api/v1/nodes/n").get_json() == node
    assert_problem(admin.get("/api/v1/nodes/m"), 404, "not_found")


def test_a_silent_broker_and_a_deaf_worker_are_problems(anybody: FlaskClient, ctx: Context) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name, canary_at) VALUES ('n', hostler_now())"))
        connection.execute(
            text(
                "INSERT INTO workers (id, node, role, pid, started_at)"
                " VALUES ('n/worker/1/1', 'n', 'worker', 1, hostler_now() - interval '1 minute')"
            )
        )
    assert "worker n/worker/1/1 hears nothing" in " ".join(anybody.get("/health").get_json()["problems"])
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE nodes SET canary_at = hostler_now() - interval '2 minutes'"))
    forget_health(anybody)
    problems = " ".join(anybody.get("/health").get_json()["problems"])
    assert "broker: took no message for 120 s" in problems
    assert "hears nothing" not in problems


def test_work_that_nobody_takes_is_a_problem_and_a_full_pool_is_none(
    anybody: FlaskClient, ctx: Context, admin: Caller
) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text("INSERT INTO nodes (name) VALUES ('n')"))
        connection.execute(
            text(
                "INSERT INTO workers (id, node, role, pid, concurrency, queues) SELECT 'n/' || role, 'n', role, 1, 4,"
                " ARRAY['pool.mock', 'pool.mock.control'] FROM unnest(ARRAY['worker', 'worker-control', 'agent']) role"
            )
        )
        connection.execute(text("INSERT INTO sweeps (name, tick, worker) VALUES ('s', 1, 'n/agent')"))
        connection.execute(text("UPDATE pools SET created_at = created_at - interval '1 hour'"))
    for pool in ("mock", "local"):
        body = {"server_mode": "replica_mock", "model_name": "m", "pool": pool}
        assert admin.post("/api/v1/replicas", body).status_code == 202
    forget_health(anybody)
    body = anybody.get("/health").get_json()
    assert body["silent_pools"] == ["local"]
    assert [problem for problem in body["problems"] if "pool" in problem] == [
        "pool local has work and no worker of it is heard. `hostler pool get local` shows it."
    ]
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE tasks SET created_at = created_at - interval '2 minutes'"))
    forget_health(anybody)
    body = anybody.get("/health").get_json()
    assert 120 <= body["oldest_unclaimed_s"] < 180
    late = [problem for problem in body["problems"] if "has room" in problem]
    assert [problem.split()[3] for problem in late] == ["local", "mock"]
    # waiting for room, or for GPUs, is what queues are for
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE units SET retired = true WHERE kind = 'slot' AND scope = 'mock'"))
        gpus = """UPDATE replicas SET spec = jsonb_set(spec, '{resources}', '{"gpus": 1}') WHERE pool = 'local'"""
        connection.execute(text(gpus))
    forget_health(anybody)
    assert "has room" not in " ".join(anybody.get("/health").get_json()["problems"])


def test_sweeps_that_do_not_finish_orphans_and_what_is_not_gone_are_problems(
    anybody: FlaskClient, ctx: Context, admin: Caller
) -> None:
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock"}
    replica = admin.post("/api/v1/replicas", body).get_json()["replica_id"]
    with ctx.database.begin() as connection:
        connection.execute(
            text("INSERT INTO nodes (name, attributes) VALUES ('n', CAST('{\"orphans\": [\"a\"]}' AS jsonb))")
        )
        connection.execute(
            text(
                "INSERT INTO sweeps (name, tick, worker, started_at) VALUES"
                " ('s', 1, 'w', hostler_now() - interval '1 hour'), ('s', 2, 'w', hostler_now())"
            )
        )
        connection.execute(
            text(
                "UPDATE replicas SET state = 'failed', reason = 'backend_error',"
                " state_since = hostler_now() - interval '10 minutes' WHERE id = :id"
            ),
            {"id": replica},
        )
    forget_health(anybody)
    problems = " ".join(anybody.get("/health").get_json()["problems"])
    assert "sweeps begin, and none has finished for 3600 s" in problems
    assert "1 attempts run on node n without a record" in problems
    assert "1 replicas ended more than 5 min ago and are not gone" in problems


def test_a_node_that_is_long_gone_is_forgotten(anybody: FlaskClient, ctx: Context) -> None:
    with ctx.database.begin() as connection:
        connection.execute(
            text("INSERT INTO nodes (name, heartbeat_at) VALUES ('old', hostler_now() - interval '2 days')")
        )
    assert "old" not in " ".join(anybody.get("/health").get_json()["problems"])


def forget_health(anybody: FlaskClient) -> None:
    anybody.application.extensions["hostler-health"]._until = 0.0


def test_home(anybody: FlaskClient) -> None:
    assert "is running" in anybody.get("/").get_data(as_text=True)
    assert anybody.get("/").mimetype == "text/plain"
    browser = anybody.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert browser.mimetype == "text/html"


def test_metrics(admin: Caller, anybody: FlaskClient) -> None:
    assert_problem(anybody.get("/metrics"), 401, "unauthenticated")
    admin.get("/api/v1/pools")
    text_body = admin.get("/metrics").get_data(as_text=True)
    assert 'hostler_pool_slots{pool="local"} 64.0' in text_body
    assert 'hostler_http_requests_total{method="GET",route="/api/v1/pools",status="200"}' in text_body
    assert "hostler_database_up 1.0" in text_body


def test_without_a_database(web_settings: Settings) -> None:
    nowhere = replace(web_settings, database_url="postgresql+psycopg://x:y@127.0.0.1:1/none")
    client = create_app(nowhere).test_client()
    started = time.monotonic()
    health = client.get("/health")
    assert health.status_code == 200
    assert health.get_json()["status"] == "degraded"
    assert "database" in health.get_json()["problems"][0]
    for path, headers in (("/ready", {}), ("/api/v1/pools", {"X-API-Key": "k" * 32})):
        answer = client.get(path, headers=headers)
        assert_problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    assert client.get("/openapi.json").status_code == 200
    assert time.monotonic() - started < 10


def test_a_defect_is_told_without_its_insides(admin: Caller, ctx: Context, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from app.usecases import pools

    def broken(*_: object) -> None:
        raise RuntimeError("postgresql://user:hunter2@host")

    monkeypatch.setattr(pools, "list_pools", broken)
    answer = admin.get("/api/v1/pools")
    assert_problem(answer, 500, "internal")
    assert "hunter2" not in answer.get_data(as_text=True)
    assert "RuntimeError" not in answer.get_data(as_text=True)


def test_documentation_needs_no_network(anybody: FlaskClient) -> None:
    page = anybody.get("/docs").get_data(as_text=True)
    assert "http" not in page.replace("<!doctype html>", "")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"):
        assert f"/docs/{name}" in page
        assert anybody.get(f"/docs/{name}").status_code == 200
    assert anybody.get("/docs/../setup.cfg").status_code == 404
    assert anybody.get("/docs/secrets").status_code == 404


def test_connections_that_postgres_dropped_are_no_error(admin: Caller, ctx: Context, web_settings: Settings) -> None:
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "wait_for_ready": False}
    for _ in range(2):
        assert admin.post("/api/v1/replicas", body).status_code == 202
        assert admin.get("/api/v1/replicas").status_code == 200
        with psycopg.connect(plain_url(web_settings.database_url), autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'hostler-web'"
            )
    assert admin.post("/api/v1/replicas", body, Idempotency_Key="k").status_code == 202
