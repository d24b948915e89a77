"""Giving a replica up through the API: by an admin, of what cannot be asked, once, and told."""

from __future__ import annotations

from sqlalchemy import text

from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem

MOCK = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "wait_for_ready": False}


def away(ctx: Context, replica: str) -> None:
    """It was launched, and its place cannot be asked since."""
    with ctx.database.begin() as connection:
        for query in (
            "UPDATE replicas SET state = 'unreachable' WHERE id = :id",
            "UPDATE tasks SET state = 'succeeded', finished_at = hostler_now() WHERE replica_id = :id",
            "INSERT INTO attempts (replica_id, number, name, pool, backend, launching_at)"
            " VALUES (:id, 1, 'hostler-x-' || :id || '-1', 'mock', 'mock', hostler_now())",
        ):
            connection.execute(text(query), {"id": replica})


def test_only_an_admin_gives_up_and_only_what_cannot_be_asked(  # type: ignore[no-untyped-def]
    admin: Caller, caller, ctx: Context
) -> None:
    replica = admin.post("/api/v1/replicas", MOCK).get_json()["replica_id"]
    path, asked = f"/api/v1/replicas/{replica}/stop", {"abandon": True}
    refused = assert_problem(caller("operate").post(path, asked), 403, "forbidden")
    assert list(refused["errors"]) == ["abandon"]
    refused = assert_problem(admin.post(path, asked), 409, "conflict")
    assert f"hostler replica stop {replica} --force" in refused["detail"]
    assert_problem(admin.post(path, {"abandon": "perhaps"}), 422, "invalid_config")
    assert_problem(admin.post("/api/v1/replicas/0123456789ab/stop", asked), 404, "not_found")
    away(ctx, replica)
    for replayed in (False, True):
        answer = admin.post(path, asked, Idempotency_Key="once")
        assert answer.status_code == 200
        assert ("Idempotency-Replayed" in answer.headers) == replayed
        body = answer.get_json()
        assert (body["status"], body["reason"], body["cleanup"]) == ("failed", "node_lost", None)
    assert "given up by" in body["message"]
    assert body["attempts"][0]["left_behind_at"]
    told = admin.get(f"/api/v1/replicas/{replica}/events").get_json()["events"]
    assert len([one for one in told if one["kind"] == "released"]) == 1
    assert admin.get(f"/api/v1/replicas/{replica}/explain").get_json()["rule"] == "given_up"
    # stopping what is gone is nothing
    assert admin.post(path).status_code == 200


def test_what_shares_its_job_is_told_with_its_seat(admin: Caller, ctx: Context) -> None:
    """The job has another name, and cancelling it would end the other replicas on it."""
    replica = admin.post("/api/v1/replicas", MOCK).get_json()["replica_id"]
    away(ctx, replica)
    told = '{"job_id": "4711", "seat": 2, "seats": 4, "command": "squeue -j 4711"}'
    with ctx.database.begin() as connection:
        query = text("UPDATE attempts SET told = cast(:told AS jsonb) WHERE replica_id = :id")
        connection.execute(query, {"id": replica, "told": told})
    message = admin.post(f"/api/v1/replicas/{replica}/stop", {"abandon": True}).get_json()["message"]
    assert "seat 2 of 4 of job 4711. Do not cancel that job" in message
    assert f"in the folder hostler-x-{replica}-1; look with `squeue -j 4711`" in message
    assert "carries the name" not in message
