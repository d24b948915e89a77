"""A real HTTP server that answers as it is told, for what the real API does only on a bad day."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


@dataclass
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Answer:
    """One answer. ``chunks`` is streamed, one write each, and breaks off behind them unless it is ``whole``.

    ``cut`` closes the connection without any answer.
    """

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[str] | None = None
    whole: bool = False
    cut: bool = False
    #: waited for before the answer goes out
    gate: threading.Event | None = None


class Stub:
    """``on(method, path, ...)`` says what is answered: each answer once, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.url = ""
        self._answers: dict[tuple[str, str], deque[Answer]] = defaultdict(deque)

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self._answers[method, path].extend(answers)

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        queue = self._answers.get((asked.method, asked.path))
        if not queue:
            return problem(404, "not_found", f"no {asked.path}")
        return queue.popleft() if len(queue) > 1 else queue[0]

    def calls(self, method: str, path: str) -> list[Asked]:
        return [asked for asked in self.asked if (asked.method, asked.path) == (method, path)]


def problem(status: int, code: str, detail: str = "", *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, **more}
    return Answer(status, body, {"Content-Type": "application/problem+json", **(headers or {})})


def sse(*events: str, **more: Any) -> Answer:
    return Answer(headers={"Content-Type": "text/event-stream"}, chunks=list(events), **more)


@contextmanager
def serve(stub: Stub) -> Iterator[Stub]:
    """Serve ``stub`` on a loopback port until the context ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(stub.answer))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(answer: Callable[[Asked], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.loads(raw) if raw else None
            said = answer(Asked(self.command, parts.path, parse_qs(parts.query), headers, body))
            if said.gate is not None:
                said.gate.wait(20)
            self.close_connection = True
            if said.cut:
                return
            self._send(said)

        do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def _send(self, said: Answer) -> None:
            text = said.body if isinstance(said.body, str) else json.dumps(said.body)
            content = b"" if said.body is None else text.encode()
            self.send_response(said.status)
            headers = {"Content-Type": "application/json", "Connection": "close", **said.headers}
            if said.chunks is None:
                headers["Content-Length"] = str(len(content))
            else:
                headers["Transfer-Encoding"] = "chunked"
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            for chunk in said.chunks or []:
                raw = chunk.encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n" if said.whole else content)

        def log_message(self, *args: object) -> None:
            """Tests look at ``Stub.asked`` instead."""

    return Handler
