"""The load generator sends what it is told, counts what it gets, and ends by itself."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from benchmarks import load
from benchmarks.responder import responder


class _Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Idempotency-Key"], body))
        status = 503 if len(self.seen) == 3 else 202
        self.send_response(status)
        self.send_header("Content-Length", "2")
        if len(self.seen) == 5:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[int]:
    _Collector.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_it_sends_each_request_once_with_a_serial_of_its_own(collector: int) -> None:
    headers = {"Idempotency-Key": f"k-{load.SERIAL}"}
    spec = load.Spec(
        port=collector, method="POST", path="/x", headers=headers, body='{"a": 1}', connections=2, requests=10
    )
    report = load.run(spec)
    keys = [key for _, key, _ in _Collector.seen]
    assert report.statuses == {"202": 9, "503": 1}
    assert len(set(keys)) == 10
    assert {(path, body) for path, _, body in _Collector.seen} == {("/x", b'{"a": 1}')}
    assert all(len(key) == len("k-") + len(load.SERIAL) for key in keys)


def test_two_runs_share_no_serial(collector: int) -> None:
    headers = {"Idempotency-Key": load.SERIAL}
    for serial in (0, 1000):
        spec = load.Spec(
            port=collector, method="POST", headers=headers, body="{}", connections=1, requests=4, serial=serial
        )
        load.run(spec)
    assert len({key for _, key, _ in _Collector.seen}) == 8


def test_it_ends_in_time_and_outruns_what_we_measure() -> None:
    with responder() as port:
        report = load.run(load.Spec(port=port, connections=16, seconds=0.5))
    assert set(report.statuses) == {"200"}
    assert report.seconds < 5
    assert report.per_s > 2000, "a generator slower than this would be the limit"
    assert report.p50_ms <= report.p99_ms


def test_an_answer_it_cannot_count_is_an_error() -> None:
    assert load._answer_length(b"HTTP/1.1 200 OK\r\nContent-Le") is None
    assert load._answer_length(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n") == 33
    assert load._answer_length(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nA: b\r\n\r\n{}") == 46
    with pytest.raises(RuntimeError, match="Content-Length"):
        load._answer_length(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
