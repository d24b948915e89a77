"""Small HTTP servers that say who they are and what they were asked; each fault of theirs is an attribute."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.embedded import wait_until


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Sayer:
    """An engine that answers ``{"served_by": name, ...}``. It listens from ``start`` to ``stop``."""

    name: str
    status: int = 200
    #: before the first byte of an answer
    delay_s: float = 0
    #: close the connection instead of answering
    drops: bool = False
    #: pieces of a stream, and the time between them
    pieces: int = 5
    gap_s: float = 0.01
    healthy: bool = True
    #: what ``/health`` says while it is not
    sick_status: int = 500
    hold: threading.Event | None = None
    seen: list[Seen] = field(default_factory=list)
    #: requests that are being answered now, and those whose caller went away
    active: int = 0
    gone: int = 0

    def start(self, port: int = 0) -> Sayer:
        self._server = _Server(("127.0.0.1", port), self)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Like a killed process: the port is closed and every connection is reset."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.cut()

    @property
    def asked(self) -> list[Seen]:
        """What was seen but for checks."""
        return [one for one in self.seen if one.path != "/health"]


def wait_for(condition: Callable[[], Any], timeout_s: float = 10) -> None:
    """Until ``condition``; fails loudly after ``timeout_s``."""
    wait_until(condition, timeout_s, "what was waited for")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], sayer: Sayer) -> None:
        self.sayer = sayer
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that goes away is what many tests are about."""

    def cut(self) -> None:
        for one in list(self._open):
            with suppress(OSError):
                # a reset, as the kernel does it for a process that was killed with data unread
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                one.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_OPTIONS = do_GET  # noqa: N815  (http.server's names)

    def _serve(self) -> None:
        sayer = self.server.sayer
        body = self._body()
        if len(body) < int(self.headers.get("Content-Length", 0)):
            # the caller went away in the middle of asking
            self.close_connection = True
            return
        sayer.seen.append(Seen(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        if self.path == "/health":
            self._say(200 if sayer.healthy else sayer.sick_status, {"served_by": sayer.name})
            return
        sayer.active += 1
        try:
            if sayer.hold is not None:
                self._wait(sayer)
            time.sleep(sayer.delay_s)
            if self.headers.get("Upgrade"):
                self._upgrade(sayer)
            elif sayer.drops:
                self.close_connection = True
            elif b'"stream": true' in body:
                self._stream(sayer)
            else:
                told = {"served_by": sayer.name, "path": self.path, "size": len(body)}
                self._say(sayer.status, told)
        except (BrokenPipeError, ConnectionResetError):
            sayer.gone += 1
            self.close_connection = True
        finally:
            sayer.active -= 1

    def _wait(self, sayer: Sayer) -> None:
        """Until told to go on, or the caller goes away."""
        while sayer.hold is not None and not sayer.hold.wait(0.01):
            self._look()

    def _look(self) -> None:
        self.connection.setblocking(False)
        try:
            if self.connection.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionResetError
        except BlockingIOError:
            pass
        finally:
            self.connection.setblocking(True)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            found = b""
            while size := int(self.rfile.readline().strip(), 16):
                found += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return found
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _upgrade(self, sayer: Sayer) -> None:
        asked = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(asked.encode(), usedforsecurity=False).digest()).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        self.wfile.write(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        while line := self.rfile.readline():
            self.wfile.write(sayer.name.encode() + b":" + line)
        self.close_connection = True

    def _stream(self, sayer: Sayer) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(sayer.pieces):
            self._look()
            line = f"data: {json.dumps({'served_by': sayer.name, 'n': number})}\n\n".encode()
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            time.sleep(sayer.gap_s)
        self.wfile.write(b"0\r\n\r\n")

    def _say(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        # an engine may not pass itself off as another, nor as the gateway
        self.send_header("X-Hostler-Replica", "forged")
        self.send_header("X-Hostler-Failed", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
