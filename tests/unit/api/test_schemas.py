"""Fields take what they say, and bodies tell what is missing or contradicts before what is wrong."""

from __future__ import annotations

from typing import Any

import marshmallow as ma
import pytest

from app.api.schemas.fields import Flag, JsonObject, QueryFlag, Seconds, StringMap, Text, Whole
from app.api.schemas.keys import ROLES
from app.api.schemas.pools import POOL_STATES, PoolCreate
from app.api.schemas.replicas import ReplicaCreate
from app.api.schemas.services import ServiceCreate
from app.db.models.keys import ROLES as STORED_ROLES
from app.db.models.pools import POOL_STATES as STORED_POOL_STATES
from app.errors import Contradiction, MissingFields
from app.usecases.keys import GRANTS
from hostler.cli.services_file import FIELDS


@pytest.mark.parametrize(
    "field, good, bad",
    [
        (Flag(), [True, False], ["true", 1, 0, None, "yes"]),
        (QueryFlag(), ["true", "false", "1", "0"], ["yes", "", "2"]),
        (Whole(0, 5), [0, 5], [-1, 6, "1", True, 1.5, None, [], 10**18]),
        (Seconds(0.5, 10), [0.5, 10, 3], [0, 11, "1", True, None, float("nan"), float("inf")]),
        (Text(1, 3), ["a", "äöü"], ["", "abcd", 1, None, "\x00", "\x1b", ["a"]]),
        (Text(0, 9, "[a-z]+"), ["abc"], ["", "ABC", "abc\n", "ab c"]),
        (JsonObject(), [{}, {"a": [1]}], [[], "x", None, 1]),
        (
            StringMap(name_pattern="[A-Z]+", longest_value=3, most=2),
            [{}, {"A": "abc"}, {"A": "", "B": ""}],
            [{"a": "x"}, {"A": 1}, {"A": "abcd"}, {"A": "", "B": "", "C": ""}, [], {"A\n": "x"}, {"": ""}],
        ),
    ],
)
def test_fields(field: ma.fields.Field, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert field.deserialize(value) is not None
    for value in bad:
        with pytest.raises(ma.ValidationError):
            field.deserialize(value)


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(MissingFields) as told:
        ReplicaCreate().load({"server_mode": "platform_workload"})
    assert set(told.value.errors) == {"model_name", "platform_config"}
    with pytest.raises(MissingFields) as told:
        PoolCreate().load({})
    assert set(told.value.errors) == {"name", "backend", "slots"}
    assert "gpus" in PoolCreate().load({"name": "a", "backend": "b", "gpus": 1})


def test_contradictions_come_before_wrong_values() -> None:
    with pytest.raises(Contradiction) as told:
        ReplicaCreate().load({"model_name": 7, "pool": "a", "placement": {"multibox": "b"}})
    assert set(told.value.errors) == {"pool", "placement.multibox"}


def test_what_is_filled_in() -> None:
    found = ReplicaCreate().load({"model_name": "m"})
    assert found == {
        "server_mode": "replica",
        "model_name": "m",
        "wait_for_ready": True,
        "run_diagnostics": True,
        "dry_run": False,
    }


def test_words_are_the_same_in_every_room() -> None:
    assert tuple(ROLES) == STORED_ROLES == tuple(GRANTS)
    assert tuple(POOL_STATES) == STORED_POOL_STATES


def test_a_file_of_services_may_say_what_a_create_takes() -> None:
    assert set(FIELDS) == set(ServiceCreate().fields) - {"dry_run"}
