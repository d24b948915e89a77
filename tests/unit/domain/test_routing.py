"""From rows to routes, for any rows: nobody is answered by another model, and no order of rows matters."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.lifecycle import State
from app.domain.routing import (
    MemberKind,
    ModelFacts,
    RegistrationFacts,
    ReplicaFacts,
    Route,
    RouteKind,
    RouteTable,
    Standing,
    hashed,
    plan_routes,
)

NAMES = st.sampled_from(["tiny", "gpt", "Qwen/Qwen2.5", "ein größeres", "a|b", "*", "-"])
REPLICAS = st.builds(
    ReplicaFacts,
    id=st.integers(0, 0xFFFFFFFFFFFF).map(lambda number: f"{number:012x}"),
    attempt=st.integers(1, 3),
    state=st.sampled_from(State),
    model=NAMES,
    ip=st.sampled_from([None, "127.0.0.1"]),
    port=st.sampled_from([None, 20001, 20002]),
    service=st.sampled_from(["", "svc", "tiny"]),
    serves_models=st.booleans(),
)
MODELS = st.lists(
    st.builds(ModelFacts, name=NAMES, aliases=st.lists(NAMES, max_size=3).map(tuple)),
    unique_by=lambda model: model.name,
    max_size=4,
)
REGISTRATIONS = st.lists(
    st.builds(
        RegistrationFacts,
        id=st.text(max_size=8),
        generation=st.integers(1, 3),
        ip=st.just("127.0.0.1"),
        port=st.integers(1, 65535),
        answers=st.booleans(),
        model=st.one_of(st.just(""), NAMES),
    ),
    unique_by=lambda one: one.id,
    max_size=4,
)
ROWS = st.lists(REPLICAS, unique_by=lambda replica: replica.id, max_size=12)


@given(ROWS, MODELS, REGISTRATIONS)
def test_a_route_holds_the_members_of_its_model_and_no_other(
    rows: list[ReplicaFacts], models: list[ModelFacts], registrations: list[RegistrationFacts]
) -> None:
    table = plan_routes(rows, models, registrations)
    for route in table.routes:
        for server in route.members:
            member = table.members[server]
            if route.kind is RouteKind.SERVICE:
                assert member.service == route.name
            else:
                assert member.model == route.model


@given(ROWS, MODELS, REGISTRATIONS)
def test_each_member_is_behind_its_model_and_its_service(
    rows: list[ReplicaFacts], models: list[ModelFacts], registrations: list[RegistrationFacts]
) -> None:
    table = plan_routes(rows, models, registrations)
    stores = {row.id for row in rows if not row.serves_models}
    for server, member in table.members.items():
        if member.kind is MemberKind.OWN and member.id in stores:
            assert not [one for one in table.routes if one.kind is not RouteKind.SERVICE and server in one.members]
        else:
            assert server in find(table, RouteKind.MODEL, member.model).members
        if member.service:
            assert server in find(table, RouteKind.SERVICE, member.service).members


@given(ROWS, MODELS, REGISTRATIONS)
def test_only_what_was_ready_and_has_an_address_is_a_member(
    rows: list[ReplicaFacts], models: list[ModelFacts], registrations: list[RegistrationFacts]
) -> None:
    table = plan_routes(rows, models, registrations)
    states = {row.id: row.state for row in rows if row.ip and row.port}
    for member in table.members.values():
        if member.kind is MemberKind.OWN:
            assert states[member.id] in (State.READY, State.UNREACHABLE, State.UNHEALTHY, State.STOPPING)
            assert member.standing.takes_requests == (states[member.id] in (State.READY, State.UNREACHABLE))
    assert {one.id for one in table.members.values() if one.kind is MemberKind.REGISTERED} == {
        one.id for one in registrations if one.answers and one.model
    }


@given(ROWS, MODELS, REGISTRATIONS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    rows: list[ReplicaFacts], models: list[ModelFacts], registrations: list[RegistrationFacts], mix: random.Random
) -> None:
    before = plan_routes(rows, models, registrations)
    for some in (rows, models, registrations):
        mix.shuffle(some)  # type: ignore[arg-type]
    assert plan_routes(rows, models, registrations) == before


@given(ROWS, MODELS, REGISTRATIONS)
def test_every_name_that_may_be_asked_for_is_known_once(
    rows: list[ReplicaFacts], models: list[ModelFacts], registrations: list[RegistrationFacts]
) -> None:
    table = plan_routes(rows, models, registrations)
    names = [route.name for route in table.routes if route.kind is not RouteKind.SERVICE]
    assert len(names) == len(set(names))
    wanted = {row.model for row in rows if row.state not in (State.STOPPED, State.FAILED) and row.serves_models}
    wanted |= {name for model in models for name in (model.name, *model.aliases)}
    assert wanted <= set(names)


@given(ROWS, MODELS)
def test_without_some_servers_the_routes_stay_known(rows: list[ReplicaFacts], models: list[ModelFacts]) -> None:
    table = plan_routes(rows, models)
    none = table.without(table.members)
    assert [route.name for route in none.routes] == [route.name for route in table.routes]
    assert not none.members
    assert not any(route.members for route in none.routes)
    assert table.without([]) == table


@pytest.mark.parametrize(
    "state, standing",
    [
        (State.READY, Standing.IN),
        # its host's agent may be down, or its cluster: no reason to send its users away while it answers
        (State.UNREACHABLE, Standing.IN),
        (State.UNHEALTHY, Standing.OUT),
        (State.STOPPING, Standing.DRAINING),
    ],
)
def test_states(state: State, standing: Standing) -> None:
    table = plan_routes([replica(state=state)])
    assert table.members["00000000000a-1"].standing is standing


@pytest.mark.parametrize(
    "state", sorted(set(State) - {State.READY, State.UNREACHABLE, State.UNHEALTHY, State.STOPPING})
)
def test_other_states_have_no_member(state: State) -> None:
    assert not plan_routes([replica(state=state)]).members


def test_an_alias_has_the_members_of_its_model() -> None:
    table = plan_routes(
        [replica(model="tiny"), replica(id="00000000000b", model="gpt")], [ModelFacts("tiny", ("gpt",))]
    )
    both = ("00000000000a-1", "00000000000b-1")
    assert find(table, RouteKind.MODEL, "tiny").members == both
    assert find(table, RouteKind.ALIAS, "gpt").members == both
    assert find(table, RouteKind.ALIAS, "gpt").model == "tiny"


def test_what_fails_is_not_known_any_more_unless_the_catalogue_knows_it() -> None:
    failed = replica(state=State.FAILED)
    assert plan_routes([failed]).routes == ()
    assert find(plan_routes([failed], [ModelFacts("tiny")]), RouteKind.MODEL, "tiny").members == ()


def test_a_service_is_found_by_its_id_and_by_its_name() -> None:
    rows = [replica(service="s", service_name="chatty"), replica(id="00000000000b", service="s", service_name="chatty")]
    table = plan_routes(rows)
    by_id, by_name = (find(table, RouteKind.SERVICE, name) for name in ("s", "chatty"))
    assert by_id.members == by_name.members == tuple(sorted(table.members))
    assert by_id.model == by_name.model == "tiny"
    # a name that is used again is of both until the first is gone, and what ends takes nothing new
    old = replica(id="00000000000c", service="old", service_name="chatty", state=State.STOPPING)
    again = plan_routes([*rows, old])
    asked = [again.members[one] for one in find(again, RouteKind.SERVICE, "chatty").members]
    assert {one.service for one in asked if one.standing.takes_requests} == {"s"}
    assert find(again, RouteKind.SERVICE, "s").members == by_id.members


def test_a_service_of_two_models_is_no_model() -> None:
    table = plan_routes([replica(service="s"), replica(id="00000000000b", model="other", service="s")])
    assert find(table, RouteKind.SERVICE, "s").model == ""
    assert find(plan_routes([replica(service="s")]), RouteKind.SERVICE, "s").model == "tiny"


def test_a_store_is_reached_by_its_service_and_is_no_model() -> None:
    store = replica(id="b" * 12, model="qdrant", service="svc", serves_models=False)
    table = plan_routes([store])
    [route] = table.routes
    assert (route.kind, route.name, route.model) == (RouteKind.SERVICE, "svc", "qdrant")
    assert route.members == tuple(table.members)
    # a model of the same name has only those that serve it
    both = plan_routes([store, replica(id="c" * 12, model="qdrant")])
    assert find(both, RouteKind.MODEL, "qdrant").members == (f"{'c' * 12}-1",)


def test_the_key_is_what_haproxy_makes_of_the_name() -> None:
    # printf tiny | sha256sum | tr a-f A-F
    assert hashed("tiny") == "8950ABFDA7B727630760DD35BCF5C3DAA7631AFF223A90F7728C0D2521DDE10C"


def replica(**more: Any) -> ReplicaFacts:
    values: dict[str, Any] = {"id": "00000000000a", "attempt": 1, "state": State.READY, "model": "tiny"}
    return ReplicaFacts(**{**values, "ip": "127.0.0.1", "port": 20001, **more})


def find(table: RouteTable, kind: RouteKind, name: str) -> Route:
    return next(route for route in table.routes if (route.kind, route.name) == (kind, name))
