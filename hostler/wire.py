"""Requests, answers, and when to try again: everything about speaking HTTP but the speaking itself.

An *exchange* is a generator that yields what it wants done (a Call to send, a Pause to make) and gets the Reply back.
The blocking and the async client each drive the same generators, so there is one copy of every rule.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import quote

from hostler.errors import ApiError, BadInput, HostlerError, NoAnswer, Unreachable, api_error_type

SAFE_METHODS = frozenset({"GET", "HEAD"})
#: Seconds before the second, third ... try after a broken connection.
RETRY_DELAYS_S = (0.1, 0.3)
OUTAGE_DELAY_S = 1.0
#: How long a wait that has begun rides out a server that is being restarted.
RESTART_S = 30.0
#: A server that asks for more patience than this gets the caller's decision instead.
LONGEST_RETRY_AFTER_S = 5.0
READ_TIMEOUT_S = 30.0

#: Where the control API is.
API = "/api/v1"

Json = dict[str, Any]
T = TypeVar("T")
#: ``dict`` and ``str`` for the blocking client, awaitables of them for the other.
Body = TypeVar("Body")
Words = TypeVar("Words")


@dataclass(frozen=True)
class Call:
    """One request. ``path`` is below the server's address; query values that are None are left out."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    read_timeout_s: float = READ_TIMEOUT_S
    #: how long a server that is away (being restarted) is asked again, beyond the usual few tries
    outage_s: float = 0.0
    #: a POST that only asks
    harmless: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once."""
        return self.harmless or self.method in SAFE_METHODS or "Idempotency-Key" in self.headers

    def params(self) -> list[tuple[str, str]]:
        """The query as pairs; a list gives one pair per item."""
        pairs: list[tuple[str, str]] = []
        for name, value in self.query.items():
            values = value if isinstance(value, (list, tuple)) else [value]
            pairs += [(name, _query_text(item)) for item in values if item is not None]
        return pairs


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds before going on."""

    seconds: float


@dataclass(frozen=True)
class Reply:
    """What came back. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    def json(self) -> Json:
        """The body as an object; empty for 204. Raises ApiError when it is none: something else answered."""
        if not self.content:
            return {}
        try:
            body = json.loads(self.content)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise ApiError("the answer is not from Hostler: no JSON object", status=self.status, code="not_hostler")
        return body

    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


@dataclass
class Ask:
    """An inference to be asked of a server that the registry named. Whoever carries it out puts ``outputs`` in."""

    #: an ``inference.discovery.Found`` and an ``inference.question.Question``
    found: Any
    question: Any
    timeout_s: float
    outputs: Json = field(default_factory=dict)


Steps = Generator[Call | Pause | Ask, Reply, T]


def change(method: str, path: str, body: Any = None, *, idempotency_key: str | None = None, **more: Any) -> Call:
    """A Call that changes something. It carries an Idempotency-Key, so a lost answer may be asked for again."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex, **more.pop("headers", {})}
    return Call(method, path, body=body, headers=headers, **more)


def api_path(*parts: str) -> str:
    """A path of the control API. Raises BadInput for a part that would make it another one: that of the list."""
    for part in parts:
        if part in ("", ".", ".."):
            raise BadInput(f"{part!r} is no name or id")
    return "/".join((API, *(quote(part, safe="") for part in parts)))


def body_of(call: Call) -> Steps[Json]:
    """The object that ``call`` is answered with."""
    return (yield from exchange(call)).json()


def text_of(call: Call) -> Steps[str]:
    """The text that ``call`` is answered with."""
    return (yield from exchange(call)).text()


def exchange(call: Call) -> Steps[Reply]:
    """Send ``call`` until it is answered, as often as that is harmless. Raises Unreachable, ApiError."""
    delays = list(RETRY_DELAYS_S)
    patient_until = time.monotonic() + call.outage_s
    while True:
        failure: ApiError | Unreachable
        try:
            reply = yield call
        except Unreachable as error:
            failure = error
            again = call.repeatable or not error.sent
            if isinstance(error, NoAnswer):
                # the answer was waited for already; asking again at once would only double the wait
                delays.clear()
        else:
            if reply.status < 400:
                return reply
            failure = problem(reply)
            again = call.repeatable and _passes_soon(failure)
        patient = time.monotonic() < patient_until
        if not again or not (delays or patient):
            raise failure
        pause_s = delays.pop(0) if delays else OUTAGE_DELAY_S
        yield Pause(max(pause_s, getattr(failure, "retry_after_s", None) or 0.0))


def _passes_soon(failure: ApiError) -> bool:
    """Whether the server said that trying again shortly can help."""
    if failure.status != 503 and failure.code != "idempotency_in_flight":
        return False
    return failure.retry_after_s is not None and failure.retry_after_s <= LONGEST_RETRY_AFTER_S


def problem(reply: Reply) -> ApiError:
    """The exception for an answer of 400 and above."""
    try:
        body = reply.json()
    except ApiError:
        body = {}
    code = str(body.get("code") or "error")
    fields = body.get("errors")
    return api_error_type(reply.status, code)(
        str(body.get("detail") or body.get("error") or ""),
        status=reply.status,
        code=code,
        title=str(body.get("title") or f"HTTP {reply.status}"),
        errors=_field_errors(fields) if isinstance(fields, dict) else {},
        request_id=str(body.get("request_id") or reply.headers.get("x-request-id", "")),
        retry_after_s=_seconds(reply.headers.get("retry-after")),
        body=body,
    )


def until(
    call: Call,
    done: Callable[[Json], bool],
    *,
    timeout_s: float | None,
    late: Callable[[], HostlerError],
    every_s: tuple[float, float],
) -> Steps[Json]:
    """Ask ``call`` until its body is ``done``: soon at first, then rarely (``every_s`` gives first and longest gap).

    Raises ``late()`` after ``timeout_s`` seconds.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    gap_s, longest_s = every_s
    while True:
        asked_at = time.monotonic()
        left_s = None if deadline is None else max(0.0, deadline - asked_at)
        body = (yield from exchange(_shortened(call, left_s))).json()
        # the server was there: from now on a restart of it does not end the wait
        call = replace(call, outage_s=RESTART_S)
        if done(body):
            return body
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise late()
        # a long poll has used up its gap while it waited
        rest_s = max(0.0, asked_at + gap_s - now)
        yield Pause(rest_s if deadline is None else min(rest_s, deadline - now))
        gap_s = min(longest_s, gap_s * 1.5)


def _shortened(call: Call, left_s: float | None) -> Call:
    """A long poll (``wait`` in the query) that ends no later than the caller's own patience."""
    wait_s = call.query.get("wait")
    if wait_s is None:
        return call
    whole_s = int(wait_s if left_s is None else min(wait_s, left_s))
    return replace(call, query={**call.query, "wait": whole_s}, read_timeout_s=whole_s + READ_TIMEOUT_S)


def _query_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _field_errors(fields: Mapping[str, Any], prefix: str = "") -> dict[str, list[str]]:
    """Messages by dotted field name, whatever depth the server nested them to."""
    found: dict[str, list[str]] = {}
    for name, value in fields.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict):
            found.update(_field_errors(value, f"{path}."))
        else:
            found[path] = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    return found


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:
        return None
