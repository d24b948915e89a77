"""Services under the name that callers of replica groups know: the same things, by the same ids."""

from __future__ import annotations

from tests.integration.api.conftest import Caller
from tests.integration.api.test_services import make
from tests.support.problems import assert_problem

GROUPS, SERVICES = "/api/v1/service-groups", "/api/v1/services"


def test_every_service_is_a_group_and_shows_the_same(admin: Caller) -> None:
    one, three = make(admin), make(admin, replicas=3, name="trio", labels={"n": "3"})
    page = admin.get(GROUPS).get_json()
    assert [group["group_id"] for group in page["service_groups"]] == [three["id"], one["id"]]
    assert (page["total"], page["next_cursor"]) == (2, None)
    group = admin.get(f"{GROUPS}/trio").get_json()
    service = admin.get(f"{SERVICES}/trio").get_json()
    assert (group["healthy_replicas"], group["total_replicas"]) == (0, 3)
    assert {name: value for name, value in group.items() if name in service and name != "plan"} == {
        name: value for name, value in service.items() if name != "plan"
    }


def test_groups_are_filtered_and_paged_like_services(admin: Caller) -> None:
    ids = [make(admin, name=f"g{number}", labels={"n": str(number)})["id"] for number in range(3)]
    assert [one["id"] for one in admin.get(f"{GROUPS}?label=n=1").get_json()["service_groups"]] == [ids[1]]
    assert [one["id"] for one in admin.get(f"{GROUPS}?name=g2").get_json()["service_groups"]] == [ids[2]]
    first = admin.get(f"{GROUPS}?limit=2").get_json()
    rest = admin.get(f"{GROUPS}?limit=2&cursor={first['next_cursor']}").get_json()
    assert [one["id"] for one in first["service_groups"] + rest["service_groups"]] == ids[::-1]
    assert_problem(admin.get(f"{GROUPS}?recpie=x"), 422, "invalid_config")


def test_a_group_cannot_be_made_or_changed_under_this_name(admin: Caller) -> None:
    group = f"{GROUPS}/{make(admin)['id']}"
    for method, path in (("POST", GROUPS), ("PATCH", group), ("PUT", group)):
        assert_problem(admin(method, path, {}), 405, "method_not_allowed")
    assert_problem(admin.post(f"{group}/scale", {"replicas": 2}), 404, "not_found")


def test_one_cancel_ends_it_under_every_name(admin: Caller) -> None:
    service = make(admin, replicas=2)
    asked = admin.post(f"{GROUPS}/{service['id']}/status", {"status": "cancelled"}).get_json()
    again = admin("DELETE", f"{SERVICES}/{service['id']}").get_json()
    assert (asked["replicas_updated"], again["replicas_updated"]) == (2, 0)
    assert asked["task_id"] == again["task_id"]
    for noun in (GROUPS, SERVICES):
        body = admin.get(f"{noun}/{service['id']}/status").get_json()
        assert (body["status"], body["overall_status"]) == ("cancelled", "stopped")
