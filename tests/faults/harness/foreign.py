"""Somebody else's server, registered for as long as its registrar holds a connection, and what it was told by the door.

Its own process of thought: it answers completions in its own name, notes each request that carried a key (which no
server that is not ours may ever see), and comes back when its connection breaks.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.faults.harness.asks import FOREIGN
from tests.faults.harness.journal import Journal

NAME = "foreign-1"
AGAIN_S = 0.5
#: A keep-alive comes every 5 s.
SILENCE_S = 12.0
_KEYS = ("authorization", "x-api-key", "proxy-authorization", "cookie")


class Foreign:
    """One server and its registrar."""

    def __init__(self, url: str, key: str, journal: Journal) -> None:
        self._address, self._key, self._journal = urlsplit(url), key, journal
        self._server = _Server(("127.0.0.1", 0), _handler(journal))
        self._over = threading.Event()
        self._socket: Any = None
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._server.serve_forever, self._hold)
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        """End the connection that it is registered by, as one who goes does."""
        self._over.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        self._threads[1].join(SILENCE_S + 5)

    def close(self) -> None:
        self.leave()
        self._server.shutdown()
        self._server.server_close()

    def _hold(self) -> None:
        while not self._over.is_set():
            try:
                self._register()
            except (OSError, http.client.HTTPException, ValueError) as error:
                self._journal.write("registration", broke=f"{type(error).__name__}: {error}")
            self._over.wait(AGAIN_S)

    def _register(self) -> None:
        port = self._server.server_address[1]
        body = {"replica_id": NAME, "endpoint": f"127.0.0.1:{port}", "capabilities": [{"model": FOREIGN}]}
        headers = {"X-API-Key": self._key, "Content-Type": "application/json"}
        connection = http.client.HTTPConnection(self._address.netloc, timeout=SILENCE_S)
        try:
            connection.request("POST", "/register", json.dumps(body), headers)
            self._socket = connection.sock
            answer = connection.getresponse()
            self._journal.write("registration", status=answer.status)
            while answer.status == 200 and not self._over.is_set() and answer.readline():
                pass
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Whoever looks whether it answers may go before it does."""


def _handler(journal: Journal) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._note()
            self._say({"status": "ok"})

        def do_POST(self) -> None:
            self._note()
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            message = {"role": "assistant", "content": "not one of yours"}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            self._say({"model": FOREIGN, "system_fingerprint": NAME, "object": "chat.completion", "choices": choices})

        def _note(self) -> None:
            told = [name for name in _KEYS if self.headers.get(name)]
            if told:
                journal.write("told", path=self.path, headers=told)

        def _say(self, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None: ...

    return Handler
