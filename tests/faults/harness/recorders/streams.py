"""Event streams that are never let go: one on everything, one on a replica at a time.

They begin at the beginning (``0-0``) and come back with ``Last-Event-ID`` whenever the API died. Each line of
``streams.jsonl`` has ``stream`` and ``op``: ``open``, ``event`` (``id, kind, replica_id, to_state``), ``broke``
(``why``), ``closed``.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.faults.harness.facts import StackFacts
from tests.faults.harness.recorders.lines import Lines, read_lines

NAME = "streams.jsonl"
EVERYTHING = "everything"
#: The server sends a comment every ten seconds; one that is silent for longer is frozen or gone.
SILENCE_S = 25.0
AGAIN_S = 0.25
#: So long a replica is followed before the next one is.
FOLLOW_S = 20.0


class Streams:
    """One thread per stream."""

    def __init__(self, stack: StackFacts) -> None:
        self._stack = stack
        self._lines = Lines(stack.folder / NAME)
        self._stopping = threading.Event()
        self._streams: list[tuple[_Stream, threading.Thread]] = []
        self._follow_until = 0.0
        self._followed = 0

    def start(self) -> None:
        self._spawn(EVERYTHING, "", self._choose, lambda: False)

    def stop(self) -> None:
        self._stopping.set()
        for one, thread in self._streams:
            one.hang_up()
            thread.join(2 * SILENCE_S)
        self._lines.close()

    def _choose(self, event: dict[str, Any]) -> None:
        """Follow this replica too, when it is new and the one before was followed long enough."""
        if event["kind"] != "transition" or event["from_state"] is not None or time.monotonic() < self._follow_until:
            return
        until = self._follow_until = time.monotonic() + FOLLOW_S
        self._followed += 1
        name = f"replica {self._followed}"
        query = f"?replica_id={event['replica_id']}"
        self._spawn(name, query, lambda _: None, lambda: time.monotonic() > until, replica_id=event["replica_id"])

    def _spawn(
        self, name: str, query: str, tell: Callable[[dict[str, Any]], None], over: Callable[[], bool], **more: Any
    ) -> None:
        one = _Stream(self._stack, name, query, self._lines, tell, lambda: self._stopping.is_set() or over())
        self._lines.write("begin", stream=name, **more)
        thread = threading.Thread(target=one.run, name=f"stream {name}", daemon=True)
        self._streams.append((one, thread))
        thread.start()


class _Stream:
    def __init__(
        self,
        stack: StackFacts,
        name: str,
        query: str,
        lines: Lines,
        tell: Callable[[dict[str, Any]], None],
        over: Callable[[], bool],
    ) -> None:
        self._stack, self._name, self._query = stack, name, query
        self._lines, self._tell, self._over = lines, tell, over
        self._place = "0-0"
        self._socket: socket.socket | None = None

    def hang_up(self) -> None:
        """Wake a reader that waits for the next event."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        while not self._over():
            try:
                self._read_on()
            except (OSError, http.client.HTTPException) as error:
                self._lines.write("broke", stream=self._name, why=str(error) or type(error).__name__)
            time.sleep(AGAIN_S)
        self._lines.write("closed", stream=self._name)

    def _read_on(self) -> None:
        address = urlsplit(self._stack.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=SILENCE_S)
        headers = {
            "Accept": "text/event-stream",
            "X-API-Key": self._stack.api_key,
            "Last-Event-ID": self._place,
        }
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", f"/api/v1/events{self._query}", headers=headers)
            answer = connection.getresponse()
            if answer.status != 200:
                raise http.client.HTTPException(f"answered {answer.status}")
            self._lines.write("open", stream=self._name, behind=self._place)
            for place, data in _events(answer):
                if place:
                    self._take(place, json.loads(data))
                if self._over():
                    return
        finally:
            connection.close()

    def _take(self, place: str, event: dict[str, Any]) -> None:
        self._place = place
        told = {name: event.get(name) for name in ("kind", "replica_id", "to_state")}
        self._lines.write("event", stream=self._name, id=place, **told)
        self._tell(event)


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str]]:
    """(id, data) of each event, two empty words for a sign of life; one that breaks off in the middle was not told."""
    place, data = "", []
    for line in answer:
        text = line.decode().rstrip("\r\n")
        if text.startswith("id:"):
            place = text[3:].strip()
        elif text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))
        elif not text:
            yield (place, "\n".join(data)) if place and data and line.endswith(b"\n") else ("", "")
            place, data = "", []


def read(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / NAME)
