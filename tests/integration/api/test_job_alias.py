"""What a cluster calls its job goes for an id, of replicas and of services, as long as it says which is meant."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem

CREATE = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "wait_for_ready": False}


def replica(admin: Caller, ctx: Context, job: str, *, open_: bool) -> str:
    made: str = admin.post("/api/v1/replicas", CREATE).get_json()["replica_id"]
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO attempts (replica_id, number, name, pool, backend, job_id, released_at) VALUES"
                " (:id, 1, 'a-' || :id, 'mock', 'mock', :job, CASE WHEN :open THEN NULL ELSE hostler_now() END)"
            ),
            {"id": made, "job": job, "open": open_},
        )
    return made


def test_the_only_open_one_is_meant(admin: Caller, ctx: Context) -> None:
    replica(admin, ctx, "7", open_=False)
    live = replica(admin, ctx, "7", open_=True)
    replica(admin, ctx, "7", open_=False)
    only = replica(admin, ctx, "8", open_=False)
    assert admin.get("/api/v1/replicas/7").get_json()["replica_id"] == live
    assert admin.get("/api/v1/replicas/8").get_json()["replica_id"] == only
    assert_problem(admin.get("/api/v1/replicas/9"), 404, "not_found")


@pytest.mark.parametrize("open_", [True, False])
def test_several_are_listed(admin: Caller, ctx: Context, open_: bool) -> None:
    several = [replica(admin, ctx, "7", open_=open_) for _ in range(3)]
    if open_:
        replica(admin, ctx, "7", open_=False)
    for path in ("", "/explain", "/logs", "/events"):
        body = assert_problem(admin.get(f"/api/v1/replicas/7{path}"), 409, "conflict")
        assert sorted(body["ids"]) == sorted(several)
        assert all(one in body["detail"] for one in several)
    assert_problem(admin.post("/api/v1/replicas/7/stop", {}), 409, "conflict")


ROUTES = [
    ("GET", "/services/{}"),
    ("GET", "/services/{}/status"),
    ("GET", "/services/{}/logs"),
    ("GET", "/services/{}/events"),
    ("GET", "/services/{}/revisions"),
    ("GET", "/service-groups/{}"),
    ("GET", "/service-groups/{}/status"),
    ("DELETE", "/service-groups/{}"),
    ("POST", "/services/{}/status"),
    ("POST", "/services/{}/scale"),
    ("PATCH", "/services/{}"),
    ("POST", "/vllm/{}/prompt"),
    ("GET", "/vllm/{}/models"),
    ("GET", "/vllm/{}/metrics"),
    ("GET", "/vector-db/{}/collections"),
    ("GET", "/vector-db/{}/metrics"),
]
BODIES = {"status": {"status": "cancelled"}, "scale": {"replicas": 2}, "prompt": {"prompt": "x"}}


def test_every_route_of_a_service_takes_it(admin: Caller, ctx: Context) -> None:
    ids = []
    for name in ("one", "two"):
        made = admin.post("/api/v1/services", {"recipe_name": "inference/mock", "name": name, "replicas": 1})
        assert made.status_code in (201, 202), made.get_json()
        ids.append(made.get_json()["service_id"])
    with ctx.database.begin() as connection:
        rows = connection.execute(text("SELECT service_id, replica_id FROM service_members"))
        members = {row.service_id: row.replica_id for row in rows}
        for service_id, job, is_open in ((ids[0], 7, True), (ids[0], 77, False), (ids[1], 77, False)):
            connection.execute(
                text(
                    "INSERT INTO attempts (replica_id, number, name, pool, backend, job_id, released_at) VALUES"
                    " (:id, :number, :name, 'mock', 'mock', :job, CASE WHEN :open THEN NULL ELSE hostler_now() END)"
                ),
                {
                    "id": members[service_id],
                    "number": job,
                    "name": f"a-{service_id}-{job}",
                    "job": str(job),
                    "open": is_open,
                },
            )
    for method, path in ROUTES:
        body = BODIES.get(path.rpartition("/")[2], {}) if method in ("POST", "PATCH") else None
        several = assert_problem(admin(method, f"/api/v1{path.format('77')}", body), 409, "conflict")
        assert sorted(several["ids"]) == sorted(ids), path
        nobody = admin(method, f"/api/v1{path.format('6')}", body)
        assert nobody.status_code == 404, (path, nobody.get_json())
        meant = admin(method, f"/api/v1{path.format('7')}", body)
        # what follows may be refused, for other reasons than that nobody knows whom it is about
        assert meant.status_code not in (404, 500), (path, meant.text)
