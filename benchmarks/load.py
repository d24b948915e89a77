"""A load generator that is not the limit: one epoll loop over raw sockets, requests built before the clock starts.

Runs as a process of its own (``python -m benchmarks.load``, spec as JSON on stdin, report as JSON on stdout), so that
its CPU time is its own and can be told: ``cpu_share`` well below 1 means that the server was the limit.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

from benchmarks.result import percentile

#: Where the serial number goes, so that every request is a new one to the server. Same width always.
SERIAL = "@@@@@@@@@@@@"


@dataclass(frozen=True)
class Spec:
    """What to send. It ends after ``seconds`` or ``requests``, whichever comes first."""

    port: int
    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    connections: int = 64
    seconds: float = 5.0
    requests: int = 10_000_000
    #: first of the serial numbers; two runs against one server must not share them
    serial: int = 0
    #: the core the generator is pinned to; -1 leaves it free
    core: int = -1
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Report:
    requests: int
    seconds: float
    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_share: float
    reconnects: int
    statuses: dict[str, int]


def run(spec: Spec) -> Report:
    """Generate the load from a process of its own. Raises RuntimeError when that process fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(spec)),
        capture_output=True,
        text=True,
        timeout=spec.seconds + 60,
    )
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {done.stderr.strip()[-500:]}")
    return Report(**json.loads(done.stdout))


class _Connection:
    """One kept-alive connection with one request in flight."""

    __slots__ = ("buffer", "sent_at", "sock")

    def __init__(self, host: str, port: int) -> None:
        self.sock = socket.create_connection((host, port), timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent_at = 0.0


class _Generator:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.head, self.tail = _template(spec)
        self.serial = spec.serial
        self.latencies: list[float] = []
        self.statuses: dict[str, int] = {}
        self.reconnects = 0
        self.started = 0
        self.selector = selectors.EpollSelector()

    def generate(self) -> Report:
        connections = [self._connect() for _ in range(self.spec.connections)]
        cpu, start = time.process_time(), time.perf_counter()
        end = start + self.spec.seconds
        for connection in connections:
            self._send(connection)
        in_flight = min(len(connections), self.started)
        while in_flight and time.perf_counter() < end + 30:
            for key, _ in self.selector.select(1.0):
                if not self._receive(key.data):
                    continue
                if time.perf_counter() < end and self.started < self.spec.requests:
                    self._send(key.data)
                else:
                    in_flight -= 1
        took = time.perf_counter() - start
        return Report(
            requests=len(self.latencies),
            seconds=round(took, 4),
            per_s=round(len(self.latencies) / took, 1),
            p50_ms=round(percentile(self.latencies, 0.5) * 1000, 3),
            p99_ms=round(percentile(self.latencies, 0.99) * 1000, 3),
            cpu_share=round((time.process_time() - cpu) / took, 3),
            reconnects=self.reconnects,
            statuses=self.statuses,
        )

    def _connect(self) -> _Connection:
        connection = _Connection(self.spec.host, self.spec.port)
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)
        return connection

    def _send(self, connection: _Connection) -> None:
        if self.started >= self.spec.requests:
            return
        self.started += 1
        connection.sent_at = time.perf_counter()
        connection.sock.sendall(self._request())

    def _request(self) -> bytes:
        if not self.tail:
            return self.head
        self.serial += 1
        return b"%s%012d%s" % (self.head, self.serial, self.tail)

    def _receive(self, connection: _Connection) -> bool:
        """True when an answer is complete."""
        data = connection.sock.recv(65536)
        if not data:
            self._reconnect(connection)
            return False
        buffer = connection.buffer + data
        length = _answer_length(buffer)
        if length is None or len(buffer) < length:
            connection.buffer = buffer
            return False
        connection.buffer = b""
        self.latencies.append(time.perf_counter() - connection.sent_at)
        status = buffer[9:12].decode()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        return True

    def _reconnect(self, connection: _Connection) -> None:
        """A server may close a kept connection between requests (a worker's end); the request goes out again."""
        self.reconnects += 1
        if self.reconnects > 10 * self.spec.connections:
            raise RuntimeError("the server keeps closing connections")
        self.selector.unregister(connection.sock)
        connection.sock.close()
        fresh = _Connection(self.spec.host, self.spec.port)
        connection.sock, connection.buffer = fresh.sock, b""
        self.selector.register(connection.sock, selectors.EVENT_READ, connection)
        connection.sock.sendall(self._request())


def _template(spec: Spec) -> tuple[bytes, bytes]:
    body = spec.body.encode()
    lines = [f"{spec.method} {spec.path} HTTP/1.1", f"Host: {spec.host}:{spec.port}"]
    lines += [f"{name}: {value}" for name, value in spec.headers.items()]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    head, _, tail = (("\r\n".join(lines) + "\r\n\r\n").encode() + body).partition(SERIAL.encode())
    return head, tail


def _answer_length(buffer: bytes) -> int | None:
    """Bytes of the whole answer, None while its head is not here yet."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = buffer[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        if head[9:12] in (b"204", b"304"):
            return end + 4
        raise RuntimeError(f"an answer without Content-Length: {head[:200]!r}")
    stop = head.find(b"\r\n", at + 2)
    return end + 4 + int(head[at + 17 : stop if stop > 0 else None])


def main() -> None:
    spec = Spec(**json.load(sys.stdin))
    if spec.core >= 0:
        os.sched_setaffinity(0, {spec.core})
    print(json.dumps(asdict(_Generator(spec).generate())))


if __name__ == "__main__":
    main()
