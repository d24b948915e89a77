"""A container's output, of a daemon that fails after it began to answer, as Podman does when the container goes."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import requests

from workers.backends.base import BackendError, BackendUnavailable
from workers.backends.docker_daemon import Daemon, _why_silent

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
    with serving(tmp_path / "d.sock", _Answers) as daemon:
        yield daemon


@contextmanager
def serving(path: Path, handler: type[BaseHTTPRequestHandler]) -> Iterator[Daemon]:
    with socketserver.ThreadingUnixStreamServer(str(path), handler) as server:
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


class _Freezes(_Answers):
    """It says how much it will say, and then no more."""

    def do_GET(self) -> None:
        if "/logs" not in self.path:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(LINE)
        self.wfile.flush()
        self.rfile.read(1)  # until it is left


def test_a_daemon_that_never_answers_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(BackendUnavailable) as told:
            Daemon(str(path)).version(timeout_s=0.2)
    assert str(told.value) == f"the container daemon at {path} does not answer within 0.2 s"


def test_what_the_system_says_of_the_socket_is_told_without_the_libraries_words() -> None:
    wrapped = requests.ConnectionError("('Connection aborted.', ConnectionRefusedError(111, 'Connection refused'))")
    wrapped.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert _why_silent(wrapped, 5) == ": Connection refused"
    assert _why_silent(requests.ConnectionError("no words"), 5) == ": no words"


def test_a_daemon_that_freezes_in_the_midst_of_its_output_is_told_in_words(tmp_path: Path) -> None:
    with serving(tmp_path / "d.sock", _Freezes) as daemon:
        pieces = daemon.log("one", timeout_s=0.2)
        assert next(pieces) == b"hello\n"
        with pytest.raises(BackendUnavailable, match=r"does not answer within 0\.2 s$"):
            next(pieces)
