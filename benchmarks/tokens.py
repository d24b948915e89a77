"""A reader of many streams at once: how long each token was on its way, and how long the first of a stream took.

A process of its own (``python -m benchmarks.tokens``, spec as JSON on stdin, report as JSON on stdout): one epoll loop
over raw sockets. A token tells when it was sent (benchmarks/upstream.py), by the clock that all processes share.
"""

from __future__ import annotations

import json
import os
import re
import resource
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from benchmarks.result import percentile
from benchmarks.upstream import GAP_S, MODEL, TOKENS

_STAMP = re.compile(rb'"content": ?"(\d{16})"')
#: The longest piece of an event that a stamp can be cut into.
_CUT = 40
_OVER = b"0\r\n\r\n"
_SPREAD_S = TOKENS * GAP_S


@dataclass(frozen=True)
class Spec:
    """``streams`` at once, each followed by the next on its connection; counted for ``seconds`` once all have begun."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/v1/chat/completions"
    streams: int = 1000
    seconds: float = 6.0
    core: int = -1


@dataclass(frozen=True)
class Report:
    """``share``: tokens that came of those that the upstreams would have sent to readers who never wait."""

    tokens: int
    tokens_per_s: float
    share: float
    relay_p50_ms: float
    relay_p99_ms: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    finished: int
    failed: int
    cpu_share: float


def run(spec: Spec) -> Report:
    """Read from a process of its own. Raises RuntimeError when that process fails."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tokens"],
        input=json.dumps(asdict(spec)),
        capture_output=True,
        text=True,
        timeout=spec.seconds + _SPREAD_S + 60,
    )
    if done.returncode:
        raise RuntimeError(f"the reader of streams failed: {done.stderr.strip()[-500:]}")
    return Report(**json.loads(done.stdout))


class _Stream:
    __slots__ = ("asked_s", "first", "rest", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.rest, self.asked_s, self.first = sock, b"", 0.0, True


class _Reader:
    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.request = _request(spec)
        self.selector = selectors.EpollSelector()
        self.relays: list[float] = []
        self.firsts: list[float] = []
        self.counting = False
        self.finished = self.failed = 0

    def read(self) -> Report:
        spec, began = self.spec, time.monotonic()
        begun = 0
        while (passed_s := time.monotonic() - began) < _SPREAD_S + 0.5:
            # evenly over the length of a stream, so that beginnings and ends go on all the time
            due = min(spec.streams, int(passed_s / _SPREAD_S * spec.streams) + 1)
            while begun < due:
                self._open()
                begun += 1
            self._turn(0.002)
        self.counting = True
        cpu, start = time.process_time(), time.monotonic()
        while time.monotonic() < start + spec.seconds:
            self._turn(0.05)
        took_s = time.monotonic() - start
        self._count_who_still_waits()
        if not self.relays:
            raise RuntimeError("not one token came")
        rate = len(self.relays) / took_s
        return Report(
            tokens=len(self.relays),
            tokens_per_s=round(rate, 1),
            share=round(rate / (spec.streams / GAP_S), 4),
            relay_p50_ms=_ms(self.relays, 0.5),
            relay_p99_ms=_ms(self.relays, 0.99),
            ttft_p50_ms=_ms(self.firsts, 0.5),
            ttft_p99_ms=_ms(self.firsts, 0.99),
            finished=self.finished,
            failed=self.failed,
            cpu_share=round((time.process_time() - cpu) / took_s, 3),
        )

    def _open(self) -> None:
        sock = socket.create_connection(("127.0.0.1", self.spec.port), timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = _Stream(sock)
        self.selector.register(sock, selectors.EVENT_READ, stream)
        self._ask(stream)

    def _ask(self, stream: _Stream) -> None:
        stream.rest, stream.first, stream.asked_s = b"", True, time.monotonic()
        stream.sock.sendall(self.request)

    def _turn(self, wait_s: float) -> None:
        for key, _ in self.selector.select(wait_s):
            self._take(key.data)

    def _take(self, stream: _Stream) -> None:
        try:
            data = stream.sock.recv(65536)
        except ConnectionError:
            data = b""
        now = time.monotonic()
        if not data:
            self._give_up(stream)
            return
        text = stream.rest + data
        for stamp in _STAMP.findall(text):
            if stream.first:
                stream.first = False
                if self.counting:
                    self.firsts.append(now - stream.asked_s)
            if self.counting:
                self.relays.append(now - int(stamp) / 1e6)
        if stream.first and text.startswith(b"HTTP/1.1 ") and not text.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a stream was refused: {text[:400]!r}")
        if text.endswith(_OVER):
            self.finished += 1
            self._ask(stream)
        else:
            # what may be the begin of a stamp, but no whole one: that has been counted
            stream.rest = _tail(text)

    def _give_up(self, stream: _Stream) -> None:
        self.failed += 1
        if self.failed > self.spec.streams:
            raise RuntimeError("the server keeps closing connections")
        self.selector.unregister(stream.sock)
        stream.sock.close()
        self._open()

    def _count_who_still_waits(self) -> None:
        now = time.monotonic()
        for key in self.selector.get_map().values():
            if key.data.first:
                self.firsts.append(now - key.data.asked_s)


def _tail(text: bytes) -> bytes:
    ends = [found.end() for found in _STAMP.finditer(text)]
    return text[max(len(text) - _CUT, ends[-1] if ends else 0) :]


def _request(spec: Spec) -> bytes:
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "are you ready?"}], "stream": True},
        separators=(",", ":"),
    ).encode()
    lines = [f"POST {spec.path} HTTP/1.1", f"Host: 127.0.0.1:{spec.port}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in spec.headers.items()]
    lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _ms(values: list[float], share: float) -> float:
    return round(percentile(values, share) * 1000, 3) if values else float("inf")


def main() -> None:
    spec = Spec(**json.load(sys.stdin))
    if spec.core >= 0:
        os.sched_setaffinity(0, {spec.core})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, spec.streams + 200)), hard))
    print(json.dumps(asdict(_Reader(spec).read())))


if __name__ == "__main__":
    main()
