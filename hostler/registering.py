"""A server's place in the capability registry, kept over broken connections and restarts of Hostler, for ever.

It is a stream like others: it says what to send and is told what happened, and the clients' ``follow`` does the rest.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hostler.errors import ApiError, BadInput, RegistrationEnded, Unreachable
from hostler.feed import Feed, Item
from hostler.inference.discovery import checked_capability
from hostler.wire import Call

#: The registry says that it is there every five seconds; so long without a word, and the connection is dead.
SILENCE_S = 20.0
FIRST_DELAY_S = 0.25
LONGEST_DELAY_S = 5.0
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}")
#: Answers that another try would only repeat. What is invalid at first may be a name that cannot be resolved just now.
_FINAL = frozenset({400, 401, 403, 404, 405, 409, 413, 415})
_INVALID = 422


class Registration(Feed):
    """One server. ``replica_id`` is its name in the registry: a new one is made unless one is given.

    Yields an item of ``{"status": "registered", "replica_id": ...}`` each time it is in place. Every break of the
    connection is told to ``on_break`` with its cause and the seconds until the next try. Ends by an ApiError when it is
    refused (role, allowed hosts, id taken, invalid), and by RegistrationEnded when it was taken from us.
    """

    def __init__(
        self,
        endpoint: object,
        capabilities: Iterable[Mapping[str, Any]],
        *,
        replica_id: str | None = None,
        on_break: Callable[[str, float], None] | None = None,
    ) -> None:
        self.replica_id = replica_id or uuid.uuid4().hex[:12]
        if not _ID.fullmatch(self.replica_id):
            raise BadInput(f"{self.replica_id!r} is no id: letters, digits and ._:@/+=- after a letter or digit")
        if not isinstance(endpoint, str) or not endpoint:
            raise BadInput("an endpoint is HOST:PORT")
        abilities = [checked_capability(one) for one in capabilities]
        body = {"replica_id": self.replica_id, "endpoint": endpoint, "capabilities": abilities}
        super().__init__(Call("POST", "/register", body=body), silence_s=SILENCE_S)
        self._on_break = on_break
        self._failures = 0
        self._was_registered = False

    def take(self, kind: str, data: str, event_id: str) -> Item | None:
        """An event came. Raises RegistrationEnded."""
        item = super().take(kind, data, event_id)
        status = item.json().get("status") if item is not None else None
        if status == "ended":
            raise RegistrationEnded(
                f"the registration of {self.replica_id} was ended: another registrar has its id now, its key ended,"
                " or it was removed",
                hint="hostler registration list",
            )
        if status != "registered":
            return None
        self._failures = 0
        self._was_registered = True
        return item

    def broke(self, error: Unreachable | None) -> float:
        """The connection ended or broke; seconds to wait before the next."""
        return self._again("Hostler closed the connection" if error is None else error.message)

    def refused(self, error: ApiError) -> float:
        """There is no stream; seconds to wait before the next try. Raises ``error`` when that is no use."""
        if error.status < 400 or error.status in _FINAL or (error.status == _INVALID and not self._was_registered):
            error.hint = error.hint or self._next_step(error)
            raise error
        return self._again(error.message, error.retry_after_s or 0.0)

    def _next_step(self, error: ApiError) -> str:
        if error.status == 404:
            return "this server has no capability registry; is it older than 0.3.0?"
        if error.status == 409:
            return f"hostler registration get {self.replica_id}, or give another --replica-id"
        if error.code == "forbidden":
            return "ask an admin: hostler key create NAME --role register"
        return "ask an admin: HOSTLER_REGISTER_ALLOW says what may be registered" if error.status == 403 else ""

    def _again(self, cause: str, least_s: float = 0.0) -> float:
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(self._failures, 10))
        # thousands of servers must not all come back in the same moment
        delay_s = max(least_s, delay_s) * random.uniform(0.75, 1.25)
        self._failures += 1
        if self._on_break is not None:
            self._on_break(cause, delay_s)
        return delay_s
