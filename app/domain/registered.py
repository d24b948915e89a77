"""What an answer says of a server that is not ours, and which of them take part in a model's route."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.capabilities import may_serve

#: Answers that say that the server cannot do its work now. 501 is a method or path that it does not know.
_CANNOT = (500, 502, 503, 504)
_DOES_NOT_HAVE = (404, 405, 501)


class Answer(Protocol):
    """What a probe saw: ``status`` is None without an HTTP answer, ``heard`` then says whether anything listens."""

    @property
    def status(self) -> int | None: ...

    @property
    def heard(self) -> bool: ...

    @property
    def detail(self) -> str: ...


@dataclass(frozen=True)
class Seen:
    """The verdict. ``speaks`` is None where the look did not tell."""

    address: str
    health: str
    speaks: str | None
    message: str


def verdict(address: str, health: Answer, models: Answer | None, v2: Answer | None) -> Seen:
    """What the answer to ``/health`` means, and those to ``/v1/models`` and ``/v2/health/ready`` where they were asked.

    Not every server has a health route: any answer that is not "I cannot" shows that one is there. What listens and
    speaks no HTTP is taken for gRPC. A server that has the V2 protocol's health and no list of models serves V2 only.
    """
    if health.status is None:
        return Seen(
            address, "healthy" if health.heard else "unhealthy", "other" if health.heard else None, health.detail
        )
    speaks = None
    if models is not None and v2 is not None:
        is_v2 = models.status in _DOES_NOT_HAVE and v2.status is not None and 200 <= v2.status < 300
        speaks = "v2" if is_v2 else "http"
    return Seen(address, "unhealthy" if health.status in _CANNOT else "healthy", speaks, health.detail)


@dataclass(frozen=True)
class Candidate:
    """A live registration that answers over HTTP; ``since`` orders by age. ``models`` are those that it names."""

    replica_id: str
    since: float
    owner: str
    role: str
    key_models: Collection[str] | None
    models: Sequence[str]


def joined(candidates: Iterable[Candidate], ours: Mapping[str, str]) -> dict[str, list[str]]:
    """By id, the models whose routes each joins. ``ours`` are the names that Hostler serves, and the model each means.

    Who may serve any model, or names it in his key, joins. Else a name must be nobody's: neither Hostler's, nor that of
    a server whose key entitles it to the name, nor that of another key's server that was there before. So nobody draws
    what is meant for somebody else's server.
    """
    ordered = sorted(candidates, key=lambda one: (one.since, one.replica_id))
    holders: dict[str, str] = {}
    for one in ordered:
        # an entitled server's name is not to be had, by whoever was there first
        holders |= {model: "" for model in one.models if _is_entitled(one, model, ours)}
    for one in ordered:
        for model in one.models:
            holders.setdefault(model, one.owner)
    found: dict[str, list[str]] = {}
    for one in ordered:
        for model in one.models:
            is_free = one.key_models is None and model not in ours and holders[model] == one.owner
            if is_free or _is_entitled(one, model, ours):
                names = found.setdefault(one.replica_id, [])
                real = ours.get(model, model)
                names.extend([real] if real not in names else [])
    return found


def _is_entitled(one: Candidate, model: str, ours: Mapping[str, str]) -> bool:
    # who was given an alias was not given the model behind it
    return all(may_serve(name, one.role, one.key_models, (name,)) for name in {model, ours.get(model, model)})
