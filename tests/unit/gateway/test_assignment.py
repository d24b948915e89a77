"""Slots: each route keeps its own, and no slot ever holds two routes' servers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.domain.lifecycle import State
from app.domain.routing import ModelFacts, ReplicaFacts, RouteKind, RouteTable, plan_routes
from app.gateway.assignment import Name, assign, servers_of, slot_names
from app.gateway.maps import ROUTES, SERVICES, make_maps

SLOTS = slot_names(6)
STATES = st.sampled_from([State.READY, State.UNHEALTHY, State.STOPPING, State.STARTING])
ROWS = st.lists(
    st.builds(
        ReplicaFacts,
        id=st.integers(0, 9).map(lambda number: f"{number:012x}"),
        attempt=st.just(1),
        state=STATES,
        model=st.sampled_from("abcdefgh"),
        ip=st.just("127.0.0.1"),
        port=st.integers(20000, 20009),
        service=st.sampled_from(["", "s", "t"]),
    ),
    unique_by=lambda row: row.id,
    max_size=8,
)
HISTORIES = st.lists(ROWS, min_size=1, max_size=6)


def table(rows: list[ReplicaFacts]) -> RouteTable:
    return plan_routes(rows, [ModelFacts("a", ("alias",))])


@given(HISTORIES)
def test_all_of_a_slot_is_behind_each_of_its_routes(history: list[list[ReplicaFacts]]) -> None:
    before: dict[Name, str] = {}
    for rows in history:
        now = table(rows)
        found = assign(now, before, SLOTS)
        held = servers_of(now, found)
        for route in now.routes:
            slot = found.slots.get((route.kind, route.name))
            if slot is not None:
                assert tuple(sorted(server for at, server in held if at == slot)) == route.members
        before = dict(found.slots)


@given(HISTORIES)
def test_a_route_stays_where_it_is_unless_it_shared(history: list[list[ReplicaFacts]]) -> None:
    before: dict[Name, str] = {}
    for rows in history:
        now = table(rows)
        found = assign(now, before, SLOTS)
        for name, slot in found.slots.items():
            if name in before and before[name] != slot:
                assert list(before.values()).count(before[name]) > 1
        before = dict(found.slots)


@given(ROWS, st.sets(st.sampled_from(SLOTS)))
def test_a_resting_slot_is_given_to_nobody(rows: list[ReplicaFacts], resting: set[str]) -> None:
    found = assign(table(rows), {}, SLOTS, resting)
    assert not resting & set(found.slots.values())
    assert all(name not in found.slots for name in found.homeless)


@given(ROWS)
def test_names_lead_only_where_somebody_takes_requests(rows: list[ReplicaFacts]) -> None:
    now = table(rows)
    maps = make_maps(now, assign(now, {}, SLOTS))
    for route in now.routes:
        value = maps[SERVICES if route.kind is RouteKind.SERVICE else ROUTES][route.key]
        ready = any(row.state is State.READY and f"{row.id}-1" in route.members for row in rows)
        if not ready:
            assert value.startswith("-|")


def test_routes_of_the_same_members_share_a_slot_until_they_differ() -> None:
    alone = [row("0", service="s")]
    found = assign(table(alone), {}, SLOTS)
    slots = {
        found.slots[name] for name in ((RouteKind.MODEL, "a"), (RouteKind.ALIAS, "alias"), (RouteKind.SERVICE, "s"))
    }
    assert len(slots) == 1
    after = assign(table([*alone, row("1")]), found.slots, SLOTS)
    assert after.slots[RouteKind.MODEL, "a"] == after.slots[RouteKind.ALIAS, "alias"] == slots.pop()
    assert after.slots[RouteKind.SERVICE, "s"] != after.slots[RouteKind.MODEL, "a"]


def test_what_gets_no_slot_is_known_and_not_ready() -> None:
    now = table([row("0"), row("1", model="b")])
    found = assign(now, {}, SLOTS[:1])
    assert found.homeless == ((RouteKind.MODEL, "b"),)
    (route,) = (route for route in now.routes if route.name == "b")
    assert make_maps(now, found)[ROUTES][route.key].startswith("-|")


def row(number: str, model: str = "a", service: str = "") -> ReplicaFacts:
    return ReplicaFacts(number * 12, 1, State.READY, model, "127.0.0.1", 20000 + int(number), service=service)
