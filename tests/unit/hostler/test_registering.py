"""A registration comes back for ever, but for what another try would only repeat."""

from __future__ import annotations

import json

import pytest

from hostler.errors import ApiError, BadInput, RegistrationEnded, Unreachable
from hostler.registering import LONGEST_DELAY_S, Registration

REGISTERED = json.dumps({"status": "registered", "replica_id": "r1"})


@pytest.fixture
def told() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def registration(told: list[tuple[str, float]]) -> Registration:
    return Registration(
        "localhost:1", [{"model": "m"}], replica_id="r1", on_break=lambda cause, delay_s: told.append((cause, delay_s))
    )


def test_what_is_sent(registration: Registration) -> None:
    call = registration.call
    assert (call.method, call.path) == ("POST", "/register")
    assert call.body == {"replica_id": "r1", "endpoint": "localhost:1", "capabilities": [{"model": "m"}]}
    assert call.headers["Accept"] == "text/event-stream"
    # the registry speaks every five seconds
    assert 10 < call.read_timeout_s < 60


def test_only_being_registered_is_news(registration: Registration) -> None:
    item = registration.take("message", REGISTERED, "")
    assert item is not None
    assert item.json()["replica_id"] == "r1"
    assert registration.take("message", '{"status": "alive"}', "") is None
    assert registration.take("message", "", "") is None
    assert registration.take("message", "no json", "") is None
    assert not registration.is_over()


def test_it_comes_back_for_ever(registration: Registration, told: list[tuple[str, float]]) -> None:
    pauses = [registration.broke(Unreachable("gone")) for _ in range(200)]
    assert 0 < min(pauses) <= 0.25 * 1.25
    assert max(pauses) <= LONGEST_DELAY_S * 1.25
    assert told[-1] == ("gone", pauses[-1])
    registration.take("message", REGISTERED, "")
    assert registration.broke(None) <= 0.25 * 1.25
    assert "closed" in told[-1][0]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413, 422])
def test_what_is_refused_is_not_asked_again(registration: Registration, status: int) -> None:
    error = ApiError("no", status=status)
    with pytest.raises(ApiError) as caught:
        registration.refused(error)
    assert caught.value is error


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_what_passes_is_waited_for(registration: Registration, status: int) -> None:
    assert registration.refused(ApiError("later", status=status, retry_after_s=30)) >= 30 * 0.75


def test_a_name_that_cannot_be_resolved_for_a_while_ends_nothing(registration: Registration) -> None:
    registration.take("message", REGISTERED, "")
    assert registration.refused(ApiError("cannot be resolved", status=422)) > 0
    with pytest.raises(ApiError):
        registration.refused(ApiError("no", status=409))


def test_what_was_taken_is_not_taken_back(registration: Registration) -> None:
    with pytest.raises(RegistrationEnded, match="another registrar"):
        registration.take("message", '{"status": "ended"}', "")


def test_each_has_an_id_of_its_own() -> None:
    first, second = (Registration("h:1", [{}]).replica_id for _ in range(2))
    assert first != second


@pytest.mark.parametrize("replica_id", ["-x", "a b", "x" * 129, "ü"])
def test_ids_that_are_none(replica_id: str) -> None:
    with pytest.raises(BadInput):
        Registration("h:1", [{}], replica_id=replica_id)


@pytest.mark.parametrize("capability", [{"a": None}, {"a": [1]}, {"": 1}, {"a": float("nan")}, "a"])
def test_capabilities_that_are_none(capability: object) -> None:
    with pytest.raises(BadInput):
        Registration("h:1", [capability])  # type: ignore[list-item]
