"""Prefer: wait=N, and noticing that the caller went away: that ends the wait, never the work."""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import request

from app.usecases import waiting
from app.usecases.context import Context

#: Between two looks whether the caller is still there.
LOOK_S = 2.0

_WAIT = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=$|[,;])", re.IGNORECASE)
_ASYNC = re.compile(r"(?:^|[,;])\s*respond-async\s*(?=$|[,;])", re.IGNORECASE)


@dataclass(frozen=True)
class Preference:
    """What the Prefer header says. ``wait_s`` is None when it names no wait."""

    wait_s: float | None = None
    respond_async: bool = False

    def bounded(self, longest_s: float, default_s: float = 0.0) -> float:
        """How long to wait, in seconds: the wish, else nothing when asked for async, else ``default_s``."""
        if self.wait_s is not None:
            return min(self.wait_s, longest_s)
        return 0.0 if self.respond_async else min(default_s, longest_s)


def preference() -> Preference:
    """The request's Prefer headers; what is not understood is ignored, as RFC 7240 wants."""
    header = ",".join(request.headers.getlist("Prefer"))
    if not header:
        return Preference()
    wait = _WAIT.search(header)
    return Preference(float(wait.group(1)) if wait else None, _ASYNC.search(header) is not None)


def wait_as_preferred(context: Context, task_id: str | None) -> dict[str, Any] | None:
    """The task after the wait that Prefer asks for; None when it asks for none, or there is no task."""
    wait_s = preference().bounded(context.settings.max_wait_s)
    return wait_for_task(context, task_id, wait_s) if task_id is not None and wait_s > 0 else None


def wait_for_task(context: Context, task_id: str, timeout_s: float) -> dict[str, Any]:
    """The task when it has ended, the time ran out, or the caller went away."""
    end = time.monotonic() + timeout_s
    while True:
        left_s = end - time.monotonic()
        task = waiting.wait_for_task(context, task_id, max(0.0, min(left_s, LOOK_S)))
        if task["finished_at"] is not None or left_s <= LOOK_S or caller_left():
            return task


def caller_left() -> bool:
    """Whether the caller closed its connection; False where the server does not show its socket."""
    connection = connection_of(request.environ)
    return connection is not None and closed(connection)


def connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """The caller's socket; None where the server does not show it, or TLS, which cannot be peeked into."""
    connection: socket.socket | None = environ.get("gunicorn.socket")
    return None if isinstance(connection, ssl.SSLSocket) else connection


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed it. Never waits."""
    # gevent's own would wait for something to read; and select() takes no file beyond the 1,024th
    plain: Any = getattr(connection, "_sock", connection)
    try:
        return bool(plain.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
    except BlockingIOError:
        return False
    except (OSError, ValueError):
        return True
