"""What the gateway or a replica refused, as the errors of the model API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from app.api.inference.door import Answer
from app.engines.dialects.base import words_of
from app.errors import (
    BodyTooLarge,
    Forbidden,
    GatewayDown,
    HostlerError,
    NoReadyReplica,
    NotOffered,
    ReplicaBadAnswer,
    ReplicaBusy,
    ReplicaRefused,
    ReplicaTooSlow,
)

_OF_GATEWAY: dict[int, type[HostlerError]] = {
    403: Forbidden,
    # there is such a model, or we had not asked
    404: NoReadyReplica,
    413: BodyTooLarge,
    429: ReplicaBusy,
    502: ReplicaBadAnswer,
    503: NoReadyReplica,
    504: ReplicaTooSlow,
}
#: What is not named here is the request's fault below 500, and the replica's from there on.
_OF_REPLICA: dict[int, type[HostlerError]] = {
    # it knows neither our key nor our route: the request cannot help that
    401: ReplicaBadAnswer,
    403: ReplicaBadAnswer,
    404: NotOffered,
    405: NotOffered,
    408: ReplicaTooSlow,
    429: ReplicaBusy,
    501: NotOffered,
    503: NoReadyReplica,
    504: ReplicaTooSlow,
}
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")


def refusal_of(answer: Answer) -> HostlerError:
    """The error for an answer that is not 200."""
    body = answer.refusal()
    retry_after_s = int(answer.retry_after) if re.fullmatch(r"\d{1,6}", answer.retry_after) else None
    if body.get("source") == "gateway":
        return of_gateway(answer.status, body, retry_after_s)
    kind = _OF_REPLICA.get(answer.status) or (ReplicaRefused if 400 <= answer.status < 500 else ReplicaBadAnswer)
    words = engine_words(body)
    if not words:
        return kind(retry_after_s=retry_after_s)
    return kind(f"The replica answered {answer.status}: {words}", retry_after_s=retry_after_s)


def engine_words(body: Any) -> str:
    """What an engine says about a refusal, on one line; empty when it says nothing.

    Engines write ``{"error": {"message": ...}}``, ``{"error": ...}``, ``{"message": ...}`` or ``{"detail": ...}``.
    """
    if not isinstance(body, Mapping):
        return ""
    found = next((body[name] for name in ("error", "message", "detail") if body.get(name)), "")
    text = words_of(found) if found else ""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def of_gateway(status: int, body: Mapping[str, Any], retry_after_s: int | None) -> HostlerError:
    kind = _OF_GATEWAY.get(status, GatewayDown if status >= 500 else ReplicaBadAnswer)
    told = {name: value for name in ("detail", "code", "title") if isinstance(value := body.get(name), str)}
    if status != kind.status:
        told = {}
    error = kind(told.get("detail", ""), retry_after_s=retry_after_s, extra={"source": "gateway"})
    if _CODE.fullmatch(told.get("code", "")):
        # the gateway knows better than we which limit it was
        error.code, error.title = told["code"], told.get("title", error.title)
    return error


def is_nowhere(refused: HostlerError) -> bool:
    """Whether the gateway knows of no replica, and so none was asked."""
    return refused.extra.get("source") == "gateway" and refused.code == NoReadyReplica.code
