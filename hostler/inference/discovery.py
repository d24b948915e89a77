"""Which server is asked: found when first needed, kept while it answers, looked for anew when it does not.

The rules stand here once, as steps that both clients carry out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hostler.errors import (
    ApiError,
    BadInput,
    HostlerError,
    InferenceError,
    InferenceRefused,
    NoMatchingServer,
    NotFound,
    ServerFailed,
)
from hostler.inference.endpoint import Endpoint, checked_protocol, parse_endpoint
from hostler.inference.question import Question
from hostler.wire import Ask, Call, Json, Steps, exchange

#: Answers that say the server does not have the model, as one that took over another's port would.
_NOT_THERE = frozenset({"404", "NOT_FOUND", "UNIMPLEMENTED"})
NO_MATCH = "no matching replica"


@dataclass(eq=False)
class Found:
    """A server as the registry named it, and the connection to it once there is one."""

    endpoint: Endpoint
    replica_id: str
    lane: Any = field(default=None, repr=False)

    def is_same(self, other: Found) -> bool:
        return (self.replica_id, self.endpoint.authority) == (other.replica_id, other.endpoint.authority)


class Discovery:
    """The server with a capability. Threads may share one: each call goes on with what it has found."""

    def __init__(self, capability: Mapping[str, Any] | None, protocol: str | None) -> None:
        self.capability = None if capability is None else checked_capability(capability)
        self._protocol = checked_protocol(protocol)
        self.found: Found | None = None
        self.closed = False

    def _found_steps(self) -> Steps[Found]:
        """The server to ask: what another call has found meanwhile, else whom the registry names."""
        return self.found or self._first((yield from self._look_steps()))

    def _first(self, fresh: Found) -> Found:
        # of many calls that begin at once one finds for all: a connection for each would be too many
        if self.found is None:
            self.found = fresh
        return self.found

    def _look_steps(self) -> Steps[Found]:
        """Ask the registry, whatever was found before. Raises NoMatchingServer and what any call of the API may."""
        if self.capability is None:
            raise BadInput(
                "which server? Name what it must be able to do",
                hint='hostler.Client(capability={"model": "qwen2"})',
            )
        body = yield from find_steps(self.capability)
        try:
            endpoint = parse_endpoint(str(body["endpoint"]), self._protocol)
        except (KeyError, ValueError) as error:
            raise ApiError(f"the registry named no usable endpoint: {error}", code="bad_endpoint", body=body) from error
        return Found(endpoint, str(body.get("replica_id") or ""))

    def infer_steps(self, question: Question, *, retry: bool, timeout_s: float) -> Steps[Json]:
        """The outputs; after a failure of the server once more, at the server that the registry names then."""
        if self.closed:
            raise BadInput("this client is closed")
        found = yield from self._found_steps()
        try:
            return (yield from self._ask(found, question, timeout_s))
        except ServerFailed as error:
            if not retry:
                raise
            first = error
        try:
            again = yield from self._found_steps()
            if again.is_same(found):
                # its registration may outlive it; asked once more, a registry that spreads names another if it has one
                self.found = again = yield from self._look_steps()
        except HostlerError as error:
            raise _nobody_else(first, error) from error
        found = again
        try:
            return (yield from self._ask(found, question, timeout_s))
        except InferenceError as second:
            second.calls += first.calls
            second.sent = second.sent or first.sent
            second.message = f"{second.message} (asked before: {first.message})"
            second.args = (second.message,)
            raise

    def _ask(self, found: Found, question: Question, timeout_s: float) -> Steps[Json]:
        ask = Ask(found, question, timeout_s)
        try:
            yield ask
        except InferenceError as error:
            error.endpoint, error.replica_id = found.endpoint.text, found.replica_id
            name = f"{found.replica_id} at {found.endpoint.text}" if found.replica_id else found.endpoint.text
            error.message = f"{name}: {error.message}"
            error.args = (error.message,)
            stale = not isinstance(error, InferenceRefused) or error.status in _NOT_THERE
            # another thread may have found a newer one meanwhile. The connection is left to the calls that are on it,
            # and closes with the last of them
            if stale and self.found is found:
                self.found = None
            raise
        return ask.outputs


def find_steps(capability: Mapping[str, Any]) -> Steps[Json]:
    """``GET /route``: the registry's answer, ``endpoint`` and ``replica_id``."""
    try:
        return (yield from exchange(Call("GET", "/route", checked_capability(capability)))).json()
    except NotFound as error:
        if NO_MATCH not in error.message:
            raise
        words = " ".join(f"{name}={value}" for name, value in capability.items()) or "anything"
        raise NoMatchingServer(
            f"no registered server can do {words}",
            status=error.status,
            code=error.code,
            request_id=error.request_id,
            body=error.body,
            capability=capability,
            hint="hostler registration list shows servers; hostler register adds one",
        ) from error


def checked_capability(capability: object) -> dict[str, Any]:
    """The conditions of a query. Raises BadInput for values that no query string can say."""
    if not isinstance(capability, Mapping):
        raise BadInput('a capability is a dict such as {"model": "qwen2"}')
    for name, value in capability.items():
        is_scalar = isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value))
        if not isinstance(name, str) or not name or not is_scalar:
            raise BadInput(f"capability {name!r}: {value!r}; names are text, values text, numbers or booleans")
    return dict(capability)


def _nobody_else(first: ServerFailed, error: HostlerError) -> ServerFailed:
    """The call failed, and there is nobody else to ask."""
    first.message = f"{first.message}; and then: {error.message}"
    first.args = (first.message,)
    first.hint = error.hint
    return first
