"""The reader of streams against the engine that costs nothing: every token is counted, once, however it is cut."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import tokens, upstream
from tests.support.engines import wait_until
from tests.support.ports import free_port


@pytest.fixture
def engine() -> Iterator[int]:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-I", upstream.__file__, str(port)])
    try:
        wait_until(lambda: _listens(port), "the upstream to listen")
        yield port
    finally:
        process.kill()
        process.wait()


def test_streams_are_read_to_their_ends(engine: int) -> None:
    seen = tokens.run(tokens.Spec(engine, streams=4, seconds=2.5))
    assert seen.failed == 0
    assert seen.finished >= 4
    assert seen.tokens > 2 * upstream.TOKENS
    assert 0 <= seen.relay_p50_ms <= seen.relay_p99_ms


def test_a_request_in_pieces_is_one_request(engine: int) -> None:
    with socket.create_connection(("127.0.0.1", engine), timeout=5) as sock:
        for piece in (b"POST /v1/chat/comple", b"tions HTTP/1.1\r\nContent-Le", b"ngth: 4\r\n\r\n{", b'""}'):
            sock.sendall(piece)
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.count(b"HTTP/1.1") == 1


def test_who_refuses_is_no_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", _REFUSES, str(listener.fileno())], pass_fds=[listener.fileno()]
        )
        try:
            with pytest.raises(RuntimeError, match="a stream was refused"):
                tokens.run(tokens.Spec(listener.getsockname()[1], streams=1, seconds=0.5))
        finally:
            process.kill()
            process.wait()


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_token_that_was_cut_is_found_in_the_next_piece(cut: int) -> None:
    event = b'x"content":"0000000000000001"}}]}'
    whole = event + event
    first, second = whole[:cut], whole[cut:]
    rest = tokens._tail(first)
    found = tokens._STAMP.findall(first) + tokens._STAMP.findall(rest + second)
    assert len(found) == 2


_REFUSES = """
import socket, sys
listener = socket.socket(fileno=int(sys.argv[1]))
sock, _ = listener.accept()
sock.recv(65536)
sock.sendall(b"HTTP/1.1 401 Unauthorized\\r\\nContent-Length: 0\\r\\n\\r\\n")
sock.recv(1)
"""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
