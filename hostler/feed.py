"""A followed stream (Server-Sent Events): what to ask, where to go on after a break, when it is over."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hostler.errors import ApiError, Unreachable
from hostler.wire import Call

#: A stream that is silent for so long (servers send keep-alive comments) is taken for dead.
SILENCE_S = 60.0
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
#: Tries to connect in a row until the server is called unreachable: at the beginning, and once it was there.
FIRST_TRIES = 3
MOST_TRIES = 12


@dataclass(frozen=True)
class Item:
    """One thing that a stream told."""

    kind: str
    data: str
    id: str = ""

    def json(self) -> dict[str, Any]:
        """The data as an object; empty when it is none."""
        try:
            body = json.loads(self.data)
        except ValueError:
            return {}
        return body if isinstance(body, dict) else {}


class Feed:
    """The state of one followed stream. A client asks it what to send and tells it what happened."""

    def __init__(
        self,
        call: Call,
        *,
        last_id: str | None = None,
        last_kind: str = "end",
        ends_when_closed: bool = False,
        without_place: Mapping[str, Any] | None = None,
        silence_s: float = SILENCE_S,
    ) -> None:
        """``last_kind``: the event after which nothing comes. ``ends_when_closed``: so says an orderly end too.

        ``without_place``: the query to go on with after a break when the server gave its events no ids; what was
        told meanwhile is missing then, and ``gaps`` counts it.
        """
        self._call = call
        self._last_id = last_id
        self._last_kind = last_kind
        self._ends_when_closed = ends_when_closed
        self._without_place = without_place
        self._silence_s = silence_s
        self.gaps = 0
        self._tries = 0
        self._began = False
        self._ended = False

    @property
    def call(self) -> Call:
        """The request that goes on where the stream broke off."""
        headers: Mapping[str, str] = {"Accept": "text/event-stream"}
        if self._last_id:
            headers = {**headers, "Last-Event-ID": self._last_id}
        query = self._call.query
        if self._began and not self._last_id and self._without_place is not None:
            query = {**query, **self._without_place}
        return replace(self._call, query=query, headers=headers, read_timeout_s=self._silence_s)

    def is_over(self) -> bool:
        """Whether the server said that nothing more will come."""
        return self._ended

    def opened(self) -> None:
        """The server answered 200."""
        self._began = True

    def take(self, kind: str, data: str, event_id: str) -> Item | None:
        """An event came. None when it is only the stream's own book-keeping."""
        self._tries = 0
        if event_id:
            self._last_id = event_id
        if kind == self._last_kind:
            self._ended = True
            if kind == "end":
                return None
        if not data and kind == "message":
            return None
        return Item(kind, data, event_id)

    def refused(self, error: ApiError) -> float:
        """There is no stream; seconds to wait before the next try. Raises ``error`` when that is no use."""
        raise error

    def broke(self, error: Unreachable | None) -> float:
        """The connection ended (None) or broke; seconds to wait before the next. Raises when it is no use."""
        self._tries += 1
        if error is None and self._ends_when_closed:
            self._ended = True
            return 0.0
        if self._began and not self._last_id and self._without_place is not None:
            self.gaps += 1
        if error is not None and self._tries >= (MOST_TRIES if self._began else FIRST_TRIES):
            raise error
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** (self._tries - 1)))
