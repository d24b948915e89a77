"""Asking a vector database: Qdrant's REST API through the inside door, and its refusals as ours."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from app.api.inference.caller import Caller
from app.api.inference.conversation import SEEN_LOOK_S, SEEN_S
from app.api.inference.door import Answer, Door
from app.api.inference.refusals import is_nowhere, of_gateway
from app.errors import (
    BodyTooLarge,
    CollectionExists,
    CollectionNotFound,
    HostlerError,
    InvalidConfig,
    NoReadyReplica,
    NotOffered,
    PointNotFound,
    ReplicaBadAnswer,
    ReplicaBusy,
    ReplicaTooSlow,
    StoreRefused,
)

#: As Qdrant takes names of collections.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
LONGEST_NAME = 255
#: Qdrant's own words for whose fault it is, which say nothing to who reads the rest.
_PREFIX = re.compile(r"^(Wrong input|Not found|Bad request|Format error in JSON body|Service internal error): ")
_BY_STATUS: Mapping[int, type[HostlerError]] = {
    400: StoreRefused,
    409: CollectionExists,
    413: BodyTooLarge,
    422: InvalidConfig,
    429: ReplicaBusy,
    503: NoReadyReplica,
    504: ReplicaTooSlow,
    408: ReplicaTooSlow,
}


@dataclass(frozen=True)
class Told:
    """What the store answered."""

    result: Any
    status: str
    time_s: float
    replica_id: str


@dataclass(frozen=True)
class Store:
    """One service's store."""

    door: Door
    service_id: str
    headers: Mapping[str, str]
    caller: Caller

    def ask(self, method: str, path: str, body: Mapping[str, Any] | bytes | None = None) -> Told:
        """One request; ``path`` is Qdrant's, and so is a ``body`` of bytes.

        Raises StoreRefused (400), CollectionNotFound, PointNotFound, CollectionExists, InvalidConfig for what Qdrant
        refuses; NotOffered, ReplicaBadAnswer, NoReadyReplica, ReplicaTooSlow, GatewayDown, CallerLeft.
        """
        address, soon = ("X-Hostler-Service", self.service_id), time.monotonic() + SEEN_S
        while True:
            with self.door.ask(method, address, path, body, self.headers, self.caller) as answer:
                if answer.status == 200:
                    return _told(answer)
                refused = _refusal(answer)
            # one that was written down as ready is routed to within a moment; until then nobody was asked
            if not (is_nowhere(refused) and time.monotonic() < soon):
                raise refused
            time.sleep(SEEN_LOOK_S)


def _told(answer: Answer) -> Told:
    found = answer.json()
    try:
        return Told(found["result"], str(found["status"]), float(found["time"]), answer.replica_id)
    except (KeyError, TypeError, ValueError) as error:
        raise ReplicaBadAnswer("The store's answer is not Qdrant's. See `hostler service logs`.") from error


def collection_path(name: str, *more: str) -> str:
    """Qdrant's path of a collection and what lies below. Raises CollectionNotFound for what no collection is called."""
    if name_problem(name):
        raise CollectionNotFound(f"There is no collection {name!r}: {name_problem(name)}")
    return "/".join(("/collections", quote(name, safe=""), *(quote(one, safe="") for one in more)))


def name_problem(name: str) -> str:
    """Why a collection cannot be called so; empty when it can."""
    if not 1 <= len(name.encode()) <= LONGEST_NAME:
        return f"Must have 1 to {LONGEST_NAME} bytes."
    # a path with dots for a name would lead elsewhere
    if name in (".", "..") or _FORBIDDEN.search(name) or not name.isprintable():
        return 'Must be printable, not . or .., and without < > : " / \\ | ? *'
    return ""


def _refusal(answer: Answer) -> HostlerError:
    body = answer.refusal()
    retry_after_s = int(answer.retry_after) if re.fullmatch(r"\d{1,6}", answer.retry_after) else None
    if body.get("source") == "gateway":
        return of_gateway(answer.status, body, retry_after_s)
    status = body.get("status")
    words = status.get("error") if isinstance(status, Mapping) else None
    words = _PREFIX.sub("", " ".join(words.split()), count=1) if isinstance(words, str) else ""
    if answer.status in (404, 405):
        return _missing(words, answer.status)
    kind = _BY_STATUS.get(answer.status)
    if kind is None:
        told = f"The store answered {answer.status}: {words}" if words else ""
        return ReplicaBadAnswer(told, retry_after_s=retry_after_s)
    errors = {"body": [words]} if kind is InvalidConfig and words else {}
    return kind(words, errors=errors, retry_after_s=retry_after_s)


def _missing(words: str, status: int) -> HostlerError:
    if status == 404 and words.startswith("Collection"):
        return CollectionNotFound(f"{words} `GET .../collections` lists those there are.")
    if status == 404 and words.startswith(("Point", "No point")):
        return PointNotFound(words)
    # a route that this version of Qdrant, or qdrant-edge, has not
    return NotOffered(words or "The store has no such route. Run another version of it.")
