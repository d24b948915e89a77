"""Services through the API: strict bodies, answers and headers, one id for every path, changes made once."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Any

import jsonschema
import pytest
from flask.testing import FlaskClient

from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.support.problems import assert_problem
from tests.support.services import Hands

CREATE: dict[str, Any] = {"recipe_name": "inference/mock", "pool": "mock"}
SERVICES = "/api/v1/services"


def make(user: Caller, **more: Any) -> dict[str, Any]:
    made = user.post(SERVICES, CREATE | more)
    assert made.status_code == 202, made.get_json()
    body: dict[str, Any] = made.get_json()
    return body


def test_a_create_is_accepted_with_where_to_look(admin: Caller) -> None:
    made = admin.post(SERVICES, CREATE | {"name": "web", "replicas": 2, "labels": {"team": "x"}})
    assert made.status_code == 202
    body = made.get_json()
    assert made.headers["Location"] == f"{SERVICES}/{body['id']}"
    assert made.headers["Link"] == f'<{body["task_url"]}>; rel="monitor"'
    assert made.headers["Retry-After"]
    assert body["id"] == body["service_id"] == body["group_id"]
    assert (body["name"], body["recipe_name"], body["status"], body["count"]) == ("web", "inference/mock", "pending", 2)
    assert [one["ordinal"] for one in body["replicas"]] == [0, 1]
    task = admin.get(body["task_url"]).get_json()
    assert (task["kind"], task["state"], task["service_id"]) == ("service_create", "running", body["id"])
    assert task["replica_id"] is None


def test_a_service_of_one_has_no_group_id_but_is_a_group(admin: Caller) -> None:
    body = make(admin)
    assert body["group_id"] is None
    group = admin.get(f"/api/v1/service-groups/{body['id']}").get_json()
    assert group["group_id"] == body["id"]
    assert (group["healthy_replicas"], group["total_replicas"]) == (0, 1)
    assert [one["id"] for one in admin.get("/api/v1/service-groups").get_json()["service_groups"]] == [body["id"]]


def test_numbers_may_be_strings(admin: Caller) -> None:
    assert make(admin, replicas="3", restart={"tries": "2"})["count"] == 3
    for wrong in ("three", "-1", "1.5", "", "1e1", True, 1.5, None, 10_001, "99999999999999999999"):
        assert_problem(admin.post(SERVICES, CREATE | {"replicas": wrong}), 422, "invalid_config")


@pytest.mark.parametrize(
    "body, field",
    [
        ({"replica": 2}, "replica"),
        ({"update": {"max_surge": 0}}, "update.max_unavailable"),
        ({"update": {"surge": 1}}, "update.surge"),
        ({"restart": {"tries": -1}}, "restart.tries"),
        ({"labels": {"service_id": "x"}}, "labels.service_id"),
        ({"labels": {"a b": "x"}}, "labels.a b"),
        ({"name": "Not A Name"}, "name"),
        ({"name": "targets"}, "name"),
        ({"name": "0123456789ab"}, "name"),
        ({"config": []}, "config"),
        ({"config": {"environment": {"NOPE": "1"}}}, "config.environment.NOPE"),
        ({"config": {"nope": 1}}, "config.nope"),
        ({"all_or_nothing": "yes"}, "all_or_nothing"),
        ({"successor_lead_s": -1}, "successor_lead_s"),
    ],
)
def test_what_is_wrong_is_named(admin: Caller, body: dict[str, Any], field: str) -> None:
    refused = assert_problem(admin.post(SERVICES, CREATE | body), 422, "invalid_config")
    assert field in refused["errors"]


def test_required_unknown_and_near(admin: Caller) -> None:
    assert assert_problem(admin.post(SERVICES, {}), 400, "missing_fields")["errors"] == {
        "recipe_name": ["Missing data for required field."]
    }
    both = assert_problem(admin.post(SERVICES, {"recipe": "inference/mock"}), 400, "missing_fields")
    assert "Missing: recipe_name. Unknown: recipe." in both["detail"]
    assert both["errors"]["recipe"] == ["Unknown field. Did you mean recipe_name?"]
    counted = admin.post(f"{SERVICES}/nope/scale", {"count": 2})
    assert set(assert_problem(counted, 400, "missing_fields")["errors"]) == {"replicas", "count"}
    unknown = assert_problem(admin.post(SERVICES, CREATE | {"recipe_name": "mok"}), 422, "unknown_recipe")
    assert "inference/mock" in unknown["detail"]
    near = assert_problem(admin.post(SERVICES, CREATE | {"recipe": "x"}), 422, "invalid_config")
    assert "Did you mean recipe_name?" in near["errors"]["recipe"][0]
    assert_problem(admin.post(SERVICES, CREATE | {"pool": "nope"}), 422, "unknown_pool")


@pytest.mark.parametrize(
    "ref", ["nope", "3652098", "ffffffffffff", "UPPER", "a%20b", "..%2f..", "%F0%9F%98%80", "-x", "x" * 200, "a'--"]
)
@pytest.mark.parametrize(
    "method, path, body",
    [
        ("GET", "", None),
        ("GET", "/status", None),
        ("GET", "/logs", None),
        ("GET", "/metrics", None),
        ("GET", "/revisions", None),
        ("GET", "/events", None),
        ("POST", "/status", {"status": "cancelled"}),
        ("POST", "/scale", {"replicas": 1}),
        ("POST", "/pause", None),
        ("POST", "/resume", None),
        ("POST", "/rollback", None),
        ("PATCH", "", {"config": {}}),
        ("DELETE", "", None),
    ],
)
def test_what_is_not_there_is_a_404(admin: Caller, ref: str, method: str, path: str, body: Any) -> None:
    for noun in ("services", "service-groups") if path in ("", "/status") and method != "PATCH" else ("services",):
        refused = assert_problem(admin(method, f"/api/v1/{noun}/{ref}{path}", body), 404, "not_found")
        assert "hostler service list" in refused["detail"] or "/docs" in refused["detail"]


def test_a_name_names_the_running_one(admin: Caller) -> None:
    first = make(admin, name="web")
    taken = assert_problem(admin.post(SERVICES, CREATE | {"name": "web"}), 409, "name_taken")
    assert taken["errors"] == {"name": ["Taken by a running service."]}
    assert admin.get(f"{SERVICES}/web").get_json()["id"] == first["id"]
    assert admin.post(f"{SERVICES}/web/status", {"status": "cancelled"}).status_code == 200
    # the last one of that name, until there is another
    assert admin.get(f"{SERVICES}/web").get_json()["id"] == first["id"]
    assert_problem(admin.post(f"{SERVICES}/web/scale", {"replicas": 2}), 409, "conflict")
    second = make(admin, name="web")
    assert admin.get(f"{SERVICES}/web").get_json()["id"] == second["id"]
    assert admin.get(f"{SERVICES}/{first['id']}").get_json()["desired_state"] == "cancelled"
    assert [one["id"] for one in admin.get(f"{SERVICES}?name=web").get_json()["services"]] == [
        second["id"],
        first["id"],
    ]


@pytest.mark.parametrize("noun, words", [("services", "Service"), ("service-groups", "Service group")])
def test_a_cancel_answers_as_callers_of_groups_know_it(admin: Caller, noun: str, words: str) -> None:
    service = make(admin, replicas=4)
    path = f"/api/v1/{noun}/{service['id']}"
    answer = admin.post(f"{path}/status", {"status": "cancelled"}, Idempotency_Key="once")
    assert answer.status_code == 200
    replayed = admin.post(f"{path}/status", {"status": "cancelled"}, Idempotency_Key="once")
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.get_json()["replicas_updated"] == 4
    body = answer.get_json()
    assert {name: body[name] for name in ("success", "message", "group_id", "replicas_updated")} == {
        "success": True,
        "message": f"{words} {service['id']} status updated to cancelled",
        "group_id": service["id"],
        "replicas_updated": 4,
    }
    assert f'</api/v1/tasks/{body["task_id"]}>; rel="monitor"' in answer.headers["Link"]
    again = admin.post(f"{path}/status", {"status": "cancelled"}).get_json()
    assert again["task_id"] == body["task_id"]
    assert admin.get(path).get_json()["desired_state"] == "cancelled"


@pytest.mark.parametrize("noun", ["services", "service-groups"])
@pytest.mark.parametrize("wish", ["running", "canceled", "", None, 1])
def test_nothing_but_cancelled_can_be_asked_for(admin: Caller, noun: str, wish: Any) -> None:
    path = f"/api/v1/{noun}/{make(admin)['id']}/status"
    refused = assert_problem(admin.post(path, {"status": wish}), 422, "invalid_config")
    assert list(refused["errors"]) == ["status"]
    assert_problem(admin.post(path, {}), 400, "missing_fields")
    assert_problem(admin.post(path, {"status": "cancelled", "force": True}), 422, "invalid_config")


@pytest.mark.parametrize("noun", ["services", "service-groups"])
def test_delete_does_the_same_and_says_that_it_will_go(admin: Caller, noun: str) -> None:
    path = f"/api/v1/{noun}/{make(admin)['id']}"
    answer = admin("DELETE", path)
    assert answer.status_code == 200
    assert answer.get_json()["replicas_updated"] == 1
    assert answer.headers["Deprecation"].startswith("@")
    assert parsedate_to_datetime(answer.headers["Sunset"]).year >= 2027
    assert f'<{path}/status>; rel="successor-version"' in answer.headers.getlist("Link")
    assert admin.get(path).get_json()["desired_state"] == "cancelled"


def test_scale_is_accepted_and_once(admin: Caller) -> None:
    service = make(admin, replicas=1)
    path = f"{SERVICES}/{service['id']}/scale"
    more = admin.post(path, {"replicas": "3"}, Idempotency_Key="k1")
    assert more.status_code == 202
    assert more.get_json()["count"] == 3
    assert len(admin.get(f"{SERVICES}/{service['id']}").get_json()["replicas"]) == 3
    replayed = admin.post(path, {"replicas": "3"}, Idempotency_Key="k1")
    assert replayed.headers["Idempotency-Replayed"] == "true"
    assert replayed.get_json()["task_id"] == more.get_json()["task_id"]
    assert_problem(admin.post(path, {"replicas": 4}, Idempotency_Key="k1"), 422, "idempotency_key_reused")
    assert_problem(admin.post(path, {}), 400, "missing_fields")


@pytest.mark.parametrize(
    "method, verb, body",
    [
        ("POST", "/scale", {"replicas": 1}),
        ("PATCH", "", {"config": {"environment": {"MOCK_SEED": "1"}}}),
        ("PATCH", "", {"restart": {"tries": 3}}),
        ("POST", "/rollback", {"revision": 1}),
        ("POST", "/pause", {}),
        ("POST", "/resume", {}),
    ],
)
def test_what_needed_no_task_needs_none_when_it_is_sent_again(
    admin: Caller, method: str, verb: str, body: dict[str, Any]
) -> None:
    service = make(admin, config={"environment": {"MOCK_SEED": "1"}})
    path = f"{SERVICES}/{service['id']}"
    # what was under way ends, so that the same count and revision ask for nothing
    admin.post(f"{path}/scale", {"replicas": 0})
    admin.post(f"{path}/scale", {"replicas": 1})
    first = admin(method, path + verb, body, Idempotency_Key="again")
    again = admin(method, path + verb, body, Idempotency_Key="again")
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.status_code == first.status_code
    assert again.get_json().get("task_id") == first.get_json().get("task_id")
    assert again.headers.get("Link") == first.headers.get("Link")


def test_a_create_is_made_once(admin: Caller) -> None:
    first = admin.post(SERVICES, CREATE, Idempotency_Key="k")
    again = admin.post(SERVICES, CREATE, Idempotency_Key="k")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.get_json()["id"] == again.get_json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert admin.get(SERVICES).get_json()["total"] == 1
    wish = CREATE | {"config": {"base_port": 8001}}
    told = [admin.post(SERVICES, wish, Idempotency_Key="w").get_json()["warnings"] for _ in range(2)]
    assert told[0] == told[1] != []
    wrong = admin.post(SERVICES, CREATE | {"recipe_name": "nope"}, Idempotency_Key="k2")
    assert_problem(wrong, 422, "unknown_recipe")
    # errors are not remembered
    assert admin.post(SERVICES, CREATE, Idempotency_Key="k2").status_code == 202


def test_a_wait_that_runs_out_is_202(admin: Caller) -> None:
    # nobody works here
    made = admin.post(SERVICES, CREATE, Prefer="wait=1")
    assert made.status_code == 202
    assert made.get_json()["status"] == "pending"


def test_an_update_makes_a_revision_and_the_same_none(admin: Caller) -> None:
    service = make(admin, config={"environment": {"MOCK_SEED": "1"}})
    path = f"{SERVICES}/{service['id']}"
    changed = admin("PATCH", path, {"config": {"environment": {"MOCK_SEED": "2"}}})
    assert changed.status_code == 202, changed.get_json()
    assert changed.get_json()["revision"] == 2
    same = admin("PATCH", path, {"config": {"environment": {"MOCK_SEED": "2"}}})
    assert same.status_code == 200
    assert same.get_json()["revision"] == 2
    found = admin.get(f"{path}/revisions").get_json()["revisions"]
    assert [one["number"] for one in found] == [2, 1]
    back = admin.post(f"{path}/rollback", {"revision": 1})
    assert back.status_code == 202
    assert back.get_json()["revision"] == 1
    assert_problem(admin.post(f"{path}/rollback", {"revision": 9}), 409, "conflict")
    assert_problem(admin("PATCH", path, {"config": {"nope": 1}}), 422, "invalid_config")
    assert "scale" in assert_problem(admin("PATCH", path, {"replicas": 2}), 422, "invalid_config")["detail"]
    kinds = [event["kind"] for event in admin.get(f"{path}/events").get_json()["events"]]
    assert kinds.index("service_created") < kinds.index("service_updated") < kinds.index("service_rolled_back")


def test_pause_and_resume(admin: Caller) -> None:
    path = f"{SERVICES}/{make(admin)['id']}"
    assert admin.post(f"{path}/pause").get_json()["paused"] is True
    assert admin.post(f"{path}/pause").get_json()["paused"] is True
    assert admin.post(f"{path}/resume", {}).get_json()["paused"] is False


def test_a_cancelled_one_takes_no_changes(admin: Caller) -> None:
    path = f"{SERVICES}/{make(admin)['id']}"
    admin.post(f"{path}/status", {"status": "cancelled"})
    for method, below, body in (
        ("POST", "/scale", {"replicas": 2}),
        ("PATCH", "", {"config": {}}),
        ("POST", "/pause", {}),
        ("POST", "/rollback", {}),
    ):
        assert_problem(admin(method, path + below, body), 409, "conflict")


def test_a_cancelled_one_has_no_metrics_to_wait_for(admin: Caller) -> None:
    service_id = make(admin, replicas=2)["id"]
    admin.post(f"{SERVICES}/{service_id}/status", {"status": "cancelled"})
    for noun in ("services", "vllm"):
        refused = admin.get(f"/api/v1/{noun}/{service_id}/metrics")
        assert "was cancelled" in assert_problem(refused, 409, "conflict")["detail"]
        assert "Retry-After" not in refused.headers


def test_dry_runs_change_nothing(admin: Caller) -> None:
    plan = admin.post(SERVICES, CREATE | {"replicas": 3, "dry_run": True})
    assert plan.status_code == 200
    assert (plan.get_json()["dry_run"], plan.get_json()["count"]) == (True, 3)
    assert admin.get(SERVICES).get_json()["total"] == 0
    service = make(admin, config={"environment": {"MOCK_SEED": "1"}})
    path = f"{SERVICES}/{service['id']}"
    change = {"config": {"environment": {"MOCK_SEED": "2"}}, "dry_run": True}
    found = admin("PATCH", path, change).get_json()
    assert {one["field"] for one in found["changes"]} >= {"config.environment.MOCK_SEED"}
    assert admin("PATCH", path, {"dry_run": True}).get_json()["changes"] == []
    assert admin.get(path).get_json()["revision"] == 1


def test_lists_are_filtered_and_paged(admin: Caller) -> None:
    ids = [make(admin, name=f"s{number}", labels={"n": str(number % 2)})["id"] for number in range(4)]
    admin.post(f"{SERVICES}/s0/status", {"status": "cancelled"})
    for query, wanted in (
        ("", [3, 2, 1, 0]),
        ("?label=n=1", [3, 1]),
        ("?name=s2", [2]),
        ("?recipe=inference/mock", [3, 2, 1, 0]),
        ("?recipe=mock", [3, 2, 1, 0]),
        ("?recipe=vllm-single-node", []),
        ("?pool=local", []),
        ("?status=pending", [3, 2, 1]),
        ("?owner=nobody", []),
    ):
        page = admin.get(SERVICES + query).get_json()
        assert [one["id"] for one in page["services"]] == [ids[number] for number in wanted], query
        assert page["total"] == len(wanted), query
    found, cursor = [], ""
    while cursor is not None:
        page = admin.get(f"{SERVICES}?limit=3&cursor={cursor}").get_json()
        found += [one["id"] for one in page["services"]]
        cursor = page["next_cursor"]
    assert found == ids[::-1]
    assert_problem(admin.get(f"{SERVICES}?stauts=pending"), 422, "invalid_config")
    assert_problem(admin.get(f"{SERVICES}?cursor=nonsense"), 422, "invalid_config")


def test_reads_have_etags(admin: Caller) -> None:
    service = make(admin)
    for path in ("", f"/{service['id']}", f"/{service['id']}/status", f"/{service['id']}/revisions", "/targets"):
        first = admin.get(SERVICES + path)
        assert first.status_code == 200
        again = admin.get(SERVICES + path, If_None_Match=first.headers["ETag"])
        # what it waits for is told as a time, which is another in each answer
        assert again.status_code == 304 or path == f"/{service['id']}"


def test_status_has_what_the_seed_names(admin: Caller) -> None:
    service = make(admin, replicas=2)
    for noun in ("services", "service-groups"):
        body = admin.get(f"/api/v1/{noun}/{service['id']}/status").get_json()
        assert (body["overall_status"], body["healthy_replicas"], body["total_replicas"]) == ("starting", 0, 2)
        assert {one["status"] for one in body["replica_statuses"]} == {"pending"}


def test_roles(admin: Caller, caller: Any, anybody: FlaskClient) -> None:
    service = make(admin)
    path = f"{SERVICES}/{service['id']}"
    reader, worker = caller("read"), caller("infer")
    assert reader.get(path).status_code == 200
    for method, below, body in (
        ("POST", "/scale", {"replicas": 2}),
        ("POST", "/status", {"status": "cancelled"}),
        ("PATCH", "", {"config": {}}),
        ("DELETE", "", None),
    ):
        assert_problem(reader(method, path + below, body), 403, "forbidden")
    assert_problem(reader.post(SERVICES, CREATE), 403, "forbidden")
    assert_problem(worker.get(path), 403, "forbidden")
    assert_problem(anybody.get(path), 401, "unauthenticated")
    assert caller("operate").post(SERVICES, CREATE).status_code == 202


def test_nothing_ready_to_be_asked(admin: Caller) -> None:
    service = make(admin)
    refused = admin.get(f"{SERVICES}/{service['id']}/metrics")
    assert_problem(refused, 503, "no_ready_replica")
    assert refused.headers["Retry-After"]
    assert admin.get(f"{SERVICES}/targets").get_json() == []
    logs = admin.get(f"{SERVICES}/{service['id']}/logs")
    assert (logs.status_code, logs.mimetype, logs.get_data()) == (200, "text/plain", b"")
    for wrong in ("ffffffffffff", "7"):
        assert_problem(admin.get(f"{SERVICES}/{service['id']}/logs?replica={wrong}"), 404, "not_found")
    assert_problem(admin.get(f"{SERVICES}/{service['id']}/logs?replica=x"), 422, "invalid_config")
    assert_problem(admin.get(f"{SERVICES}/{service['id']}/logs?tail=-1"), 422, "invalid_config")


def test_ready_ones_that_listen_nowhere_are_told_as_such(admin: Caller, ctx: Context) -> None:
    service = make(admin, replicas=2)
    Hands(ctx).settle(service["id"])
    shown = admin.get(f"{SERVICES}/{service['id']}").get_json()
    assert (shown["status"], shown["ready"]) == ("running", 2)
    refused = assert_problem(admin.get(f"{SERVICES}/{service['id']}/metrics"), 503, "no_ready_replica")
    assert "listen nowhere" in refused["detail"]
    assert admin.get(f"{SERVICES}/targets").get_json() == []


def test_the_schema_of_a_file_takes_what_a_create_takes(admin: Caller) -> None:
    answer = admin.get("/api/v1/schemas/service.json")
    assert answer.status_code == 200
    schema = answer.get_json()
    jsonschema.Draft202012Validator.check_schema(schema)
    one = {"name": "web", "recipe_name": "inference/mock", "replicas": 2, "update": {"max_surge": 2}}
    for good in (one, [one], {"services": [one]}):
        jsonschema.validate(good, schema)
    for bad in ({"recipe_name": "x"}, one | {"dry_run": True}, one | {"replica": 1}, [one | {"update": {"surge": 1}}]):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(bad, schema)
