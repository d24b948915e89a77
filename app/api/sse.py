"""Server-sent events: one generator per client, a comment when nothing happens, and no unbounded buffer."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flask import Response, request

MIMETYPE = "text/event-stream"
#: Proxies and clients give up on silence; a comment shows that the stream lives.
KEEP_ALIVE = ": keep-alive\n\n"
#: Browsers come back after this time.
RETRY_MS = 2000


@dataclass(frozen=True)
class Message:
    """One event. ``id`` is what the client sends back as Last-Event-ID."""

    event: str
    data: Any
    id: str | None = None

    @cached_property
    def text(self) -> str:
        """As it goes over the wire; made once, whoever it is sent to."""
        content = self.data if isinstance(self.data, str) else json.dumps(self.data, separators=(",", ":"))
        lines = "".join(f"data: {line}\n" for line in content.split("\n"))
        name = f"id: {self.id}\n" if self.id else ""
        return f"{name}event: {self.event}\n{lines}\n"


def wanted() -> bool:
    """Whether the caller asks for a stream rather than a page."""
    return request.accept_mimetypes.best_match(("application/json", MIMETYPE)) == MIMETYPE


def stream(messages: Iterable[Message | None]) -> Response:
    """The answer that sends ``messages`` as they come; None becomes a keep-alive comment."""
    response = Response(_lines(iter(messages)), mimetype=MIMETYPE)
    response.headers["Cache-Control"] = "no-cache"
    # nginx would hold the stream back
    response.headers["X-Accel-Buffering"] = "no"
    return response


def _lines(messages: Iterator[Message | None]) -> Generator[str]:
    # sent at once, so that the client sees its headers before the first event
    yield f"retry: {RETRY_MS}\n\n"
    try:
        for message in messages:
            yield KEEP_ALIVE if message is None else message.text
    finally:
        # the client left: let the source give back what it holds
        if isinstance(messages, Generator):
            messages.close()
