"""A container's output, of a daemon that fails after it began to answer, as Podman does when the container goes."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from workers.backends.base import BackendError
from workers.backends.docker_daemon import Daemon

LINE = b"\x01\x00\x00\x00\x00\x00\x00\x06hello\n"
WORDS = b'{"cause":"no such container","message":"failed to obtain logs","response":500}\n'


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = LINE + WORDS if "/logs" in self.path else json.dumps({"ApiVersion": "1.41"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "here"

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    path = tmp_path / "d.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), _Answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Daemon(str(path))
        server.shutdown()
        thread.join()


def test_the_daemons_own_words_are_no_output(daemon: Daemon) -> None:
    pieces = daemon.log("one")
    assert next(pieces) == b"hello\n"
    with pytest.raises(BackendError, match="failed to obtain logs"):
        next(pieces)
