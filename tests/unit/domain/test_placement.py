"""Whether a gang has room together, and what is missing where it never has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.placement import Host, Place, Units, costs_nothing, gpus_wanted, most_room, never_fits, short_of


def host(name: str, gpus: int, gpus_free: int | None = None, ports: int = 10, ports_free: int | None = None) -> Host:
    return Host(
        name,
        Units(gpus, gpus if gpus_free is None else gpus_free),
        Units(ports, ports if ports_free is None else ports_free),
    )


def place(
    *hosts: Host, slots: int = 8, free: int | None = None, gpus: Units | None = None, bound: bool = True
) -> Place:
    return Place("p", Units(slots, slots if free is None else free), gpus, hosts if bound else None)


@pytest.mark.parametrize(
    "spec, wanted",
    [({}, 0), ({"resources": {"gpus": 2}}, 2), ({"resources": {"gpu": "3"}}, 3), ({"resources": None}, 0)],
)
def test_gpus_wanted(spec: dict[str, object], wanted: int) -> None:
    assert gpus_wanted(spec) == wanted


@pytest.mark.parametrize(
    "members, gpus, where, words",
    [
        (4, 4, place(host("a", 4)), None),
        (4, 4, place(host("a", 4, 0)), None),
        (4, 4, place(), None),
        (4, 0, place(bound=False, slots=4, free=0), None),
        (5, 0, place(bound=False, slots=4), "want 5 slots; pool p has 4, 1 missing"),
        (2, 4, place(bound=False, gpus=Units(3, 3)), "want 4 GPUs and pool p has 3, 1 missing"),
        (4, 8, place(host("a", 4), host("b", 6)), "b has 6 GPUs, 2 missing; a has 4 GPUs, 4 missing"),
        (4, 0, place(host("a", 0, ports=3)), "want 4 ports of one host: a has 3 ports, 1 missing"),
        (4, 8, place(host("a", 4, ports=1)), "a has 4 GPUs, 4 missing and 1 ports, 3 missing"),
        (1, 8, place(host("a", 4)), "it wants 8 GPUs and 1 ports of one host"),
        (2, 8, place(*(host(f"h{n}", 1) for n in range(9))), "4 more hosts have less"),
    ],
)
def test_never_fits(members: int, gpus: int, where: Place, words: str | None) -> None:
    found = never_fits(members, gpus, where)
    assert found is None if words is None else words in str(found)


@pytest.mark.parametrize(
    "members, gpus, where, short",
    [
        (2, 4, place(host("a", 4)), None),
        (2, 4, place(host("a", 4), free=1), "slots"),
        (2, 4, place(host("a", 4, ports_free=1)), "ports"),
        (2, 4, place(host("a", 4, 3)), "gpus"),
        (2, 4, place(host("a", 4), gpus=Units(8, 3)), "gpus"),
        (2, 4, place(host("b", 4)), "ports"),
        (2, 4, place(bound=False), None),
    ],
)
def test_short_of(members: int, gpus: int, where: Place, short: str | None) -> None:
    assert short_of(members, gpus, where, "a") == short


@pytest.mark.parametrize(
    "members, gpus, where, found",
    [
        (2, 4, place(host("a", 4, 1), host("b", 4, 3)), ("gpus", 3)),
        (2, 4, place(host("a", 4, 1), host("b", 4)), (None, 0)),
        (2, 4, place(host("a", 4), free=1), ("slots", 1)),
        (2, 0, place(host("a", 0, ports_free=1)), ("ports", 1)),
        (2, 0, place(), ("ports", 0)),
        (2, 4, place(host("a", 4), gpus=Units(4, 2)), ("gpus", 2)),
        (2, 4, place(bound=False, gpus=Units(4, 2)), ("gpus", 2)),
    ],
)
def test_most_room(members: int, gpus: int, where: Place, found: tuple[str | None, int]) -> None:
    assert most_room(members, gpus, where) == found


def test_only_a_host_that_can_never_hold_them_is_free_for_others() -> None:
    small, big = host("small", 1), host("big", 4, 0)
    assert costs_nothing(2, 4, place(small, big), "small", 2)
    assert not costs_nothing(2, 4, place(small, big), "big", 2)
    assert not costs_nothing(2, 4, place(small, big, free=3), "small", 2)
    assert not costs_nothing(2, 4, place(small, big, gpus=Units(8, 8)), "small", 2)
    assert not costs_nothing(2, 4, place(bound=False), "small", 2)


units = st.integers(0, 12).flatmap(lambda total: st.builds(Units, st.just(total), st.integers(0, total)))
hosts = st.builds(Host, st.sampled_from("abc"), units, units)
places = st.builds(
    Place,
    st.just("p"),
    units,
    st.none() | units,
    st.none() | st.lists(hosts, max_size=3, unique_by=lambda one: one.name),
)


@given(st.integers(1, 12), st.integers(0, 12), places, st.sampled_from("abc"))
def test_what_has_room_now_is_not_refused_for_ever(members: int, gpus: int, where: Place, name: str) -> None:
    if short_of(members, gpus, where, name) is None:
        assert never_fits(members, gpus, where) is None
        assert most_room(members, gpus, where)[0] is None
        assert not costs_nothing(members, gpus, where, name, 0)
