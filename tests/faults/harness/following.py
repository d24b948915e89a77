"""Follows a log as long as a seed runs: a client that comes back with ``Last-Event-ID`` whenever its stream broke, and
breaks it off itself now and then, as clients do."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from urllib.parse import urlsplit

from tests.faults.harness.journal import Journal
from tests.faults.harness.speech import Speech

#: The server sends a comment every ten seconds; one that is silent for longer is frozen or gone.
SILENCE_S = 15.0
AGAIN_S = 0.2
#: So many lines are read of one stream: within a chunk of a copy, as a rule.
LINES = 70


class Follow:
    """One log, in a thread. ``close`` writes ``followed`` into the journal."""

    def __init__(self, url: str, key: str, replica: str, journal: Journal) -> None:
        self.replica = replica
        self.speech = Speech()
        #: the server said that nothing more comes
        self.is_over = False
        self._address, self._key, self._journal = urlsplit(url), key, journal
        self._place = ""
        self._streams = 0
        self._expected: tuple[str, int] | None = None
        self._words: list[str] = []
        self._ending = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"follows {replica}", daemon=True)
        self._thread.start()

    def expect(self, said: tuple[str, int], deadline: float) -> None:
        """Wait until it has heard what was said, or ``deadline`` (monotonic)."""
        self._expected = said
        while not self.speech.reaches(said) and time.monotonic() < deadline:
            time.sleep(0.05)

    def close(self) -> None:
        self._ending.set()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(2 * SILENCE_S)
        heard = {"heard": self.speech.heard, "over": self.is_over, "words": self._words}
        self._journal.write("followed", replica=self.replica, streams=self._streams, said=self._expected, **heard)

    def _run(self) -> None:
        while not (self._ending.is_set() or self.is_over):
            with suppress(OSError, http.client.HTTPException):
                self._read_on()
            self._ending.wait(AGAIN_S)

    def _read_on(self) -> None:
        connection = http.client.HTTPConnection(self._address.hostname or "", self._address.port, timeout=SILENCE_S)
        headers = {"Accept": "text/event-stream", "X-API-Key": self._key}
        headers |= {"Last-Event-ID": self._place} if self._place else {}
        try:
            connection.connect()
            self._socket = connection.sock
            connection.request("GET", f"/api/v1/replicas/{self.replica}/logs?follow=true", headers=headers)
            answer = connection.getresponse()
            self._streams += 1
            # forgotten meanwhile
            self.is_over = answer.status == 404
            if answer.status != 200:
                return
            for number, (event, place, data) in enumerate(_messages(answer)):
                self._take(event, place, data)
                if number >= LINES or self._ending.is_set() or self.is_over:
                    return
        finally:
            connection.close()

    def _take(self, event: str, place: str, data: str) -> None:
        self._place = place or self._place
        self.is_over = event == "end"
        self.speech.hear(data)
        if event == "log" and not data.startswith("talks "):
            # what the server itself had to say
            self._words.append(data)


def _messages(answer: http.client.HTTPResponse) -> Iterator[tuple[str, str, str]]:
    """(event, id, data) of each message that came whole."""
    event, place, data = "", "", ""
    for line in answer:
        text = line.decode(errors="replace").rstrip("\r\n")
        if text.startswith("event:"):
            event = text[6:].strip()
        elif text.startswith("id:"):
            place = text[3:].strip()
        elif text.startswith("data:"):
            data = text[5:].removeprefix(" ")
        elif not text and line.endswith(b"\n"):
            if event:
                yield event, place, data
            event, place, data = "", "", ""
