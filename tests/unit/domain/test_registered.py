"""What answers mean, and who joins whose route: nobody draws what is meant for another's server."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from app.domain.registered import Candidate, joined, verdict


@dataclass(frozen=True)
class Answer:
    status: int | None
    heard: bool = True
    detail: str = ""


NONE = Answer(None, heard=False)
NO_HTTP = Answer(None)


@pytest.mark.parametrize(
    "health, models, v2, wanted",
    [
        (Answer(200), Answer(200), Answer(404), ("healthy", "http")),
        (Answer(200), Answer(404), Answer(200), ("healthy", "v2")),
        (Answer(404), Answer(404), Answer(404), ("healthy", "http")),
        (Answer(501), Answer(501), Answer(501), ("healthy", "http")),
        (Answer(302), Answer(302), Answer(302), ("healthy", "http")),
        (Answer(401), Answer(401), Answer(401), ("healthy", "http")),
        (Answer(503), Answer(503), Answer(404), ("unhealthy", "http")),
        (Answer(500), None, None, ("unhealthy", None)),
        (Answer(200), None, None, ("healthy", None)),
        (NO_HTTP, None, None, ("healthy", "other")),
        (NONE, None, None, ("unhealthy", None)),
    ],
)
def test_what_answers_mean(health: Answer, models: Answer, v2: Answer, wanted: tuple[str, str]) -> None:
    seen = verdict("::1", health, models, v2)
    assert (seen.health, seen.speaks) == wanted


def candidate(replica_id: str, owner: str, *models: str, since: float = 0.0, role: str = "register", **more: object):  # type: ignore[no-untyped-def]
    return replace(Candidate(replica_id, since, owner, role, None, models), **more)  # type: ignore[arg-type]


def test_a_name_that_is_nobodys_is_its_first_keys() -> None:
    first = candidate("a", "one", "m", since=1)
    second = candidate("b", "one", "m", since=2)
    other = candidate("c", "two", "m", "n", since=3)
    assert joined([other, second, first], {}) == {"a": ["m"], "b": ["m"], "c": ["n"]}


def test_a_name_of_ours_needs_a_key_that_is_entitled() -> None:
    ours = {"m": "m", "alias": "m"}
    plain = candidate("a", "one", "m", "alias", "own")
    assert joined([plain], ours) == {"a": ["own"]}
    assert joined([replace(plain, key_models=("m",))], ours) == {"a": ["m"]}
    assert joined([replace(plain, key_models=("alias",))], ours) == {}
    assert joined([replace(plain, key_models=("m", "alias"))], ours) == {"a": ["m"]}
    assert joined([replace(plain, role="operate")], ours) == {"a": ["m", "own"]}


def test_who_is_entitled_takes_a_name_from_who_is_not() -> None:
    early, late = candidate("a", "one", "m", since=1), candidate("b", "two", "m", since=2, role="admin")
    assert joined([early], {}) == {"a": ["m"]}
    assert joined([early, late], {}) == {"b": ["m"]}
    named = candidate("b", "two", "m", since=2, key_models=("m",))
    assert joined([early, named], {}) == {"b": ["m"]}


def test_a_key_serves_none_but_the_models_it_names() -> None:
    assert joined([candidate("a", "one", "m", key_models=("other",))], {}) == {}
    assert joined([candidate("a", "one", "m", key_models=(), role="admin")], {}) == {}
