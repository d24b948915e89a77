"""Servers of http.server's kind, for tests that say by a handler what it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Breaking(BaseHTTPRequestHandler):
    """Tells events in streams that ``tell`` breaks off, and refuses every other stream with a 503."""

    #: the places behind which streams were asked to go on; each test's own
    asked: list[str | None]

    def do_GET(self) -> None:
        behind = self.headers["Last-Event-ID"]
        self.asked.append(behind)
        if len(self.asked) % 2 == 0:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.tell(behind)

    def tell(self, behind: str | None) -> None:
        """Write what comes behind that place, or some of it, to ``wfile``."""
        raise NotImplementedError

    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
