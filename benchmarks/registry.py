"""``registry``: 10,000 registrations held open in one API process, beside none: memory, keep-alives, and ``/route``.

They are opened at the API's own socket, as many as it holds there; the door takes two descriptors for each, so how many
fit through it goes by ``ulimit -n`` (``hostler doctor`` says so).
"""

from __future__ import annotations

import contextlib
import json
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

from app.stack.layout import Layout
from benchmarks.load import Report, Spec
from benchmarks.load import run as load
from benchmarks.result import Pair, Result, alternate, joined, result
from benchmarks.stack import Stack, stack

REGISTRATIONS = 10_000
#: Registered at once; each is a change of the database.
AT_ONCE = 16
CAPABILITIES = 100
#: Three keep-alives of each.
WINDOW_S = 15.0
KIB = 1024
#: Nobody listens there: what counts is that they are held.
PORT = 9
LOOK_S = 2.0
OPEN_S = 240.0


@dataclass(slots=True)
class _Held:
    sock: socket.socket
    alive: int = 0


class Registrars:
    """Registrations that are held open and read by one thread; keep-alives are only counted."""

    def __init__(self, ours: Stack, count: int) -> None:
        self._path, self._key = Layout(ours.state_dir).web_socket, ours.key
        began = time.monotonic()
        with ThreadPoolExecutor(AT_ONCE) as openers:
            self.held = list(openers.map(self._open, range(count), timeout=OPEN_S))
        self.opened_s = time.monotonic() - began
        self._selector = selectors.EpollSelector()
        for one in self.held:
            self._selector.register(one.sock, selectors.EVENT_READ, one)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def open(self) -> int:
        return len(self._selector.get_map())

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        self._selector.close()
        for one in self.held:
            one.sock.close()

    def _open(self, number: int) -> _Held:
        body = json.dumps(
            {
                "replica_id": f"bench-{number}",
                "endpoint": f"127.1.{number // 250}.{number % 250 + 1}:{PORT}",
                "capabilities": [{"model": f"bench-{number % CAPABILITIES}"}],
            }
        )
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(60)
        sock.connect(str(self._path))
        sock.sendall(
            f"POST /register HTTP/1.1\r\nHost: stack\r\nX-API-Key: {self._key}\r\nAccept: text/event-stream\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        said = b""
        while b'"registered"' not in said:
            piece = sock.recv(4096)
            said += piece
            if not piece or (len(said) >= 12 and not said.startswith(b"HTTP/1.1 200")):
                raise RuntimeError(f"registration {number} was refused: {said[:400]!r}")
        return _Held(sock)

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.2):
                data = key.data.sock.recv(65536)
                if data:
                    key.data.alive += data.count(b'"alive"')
                else:
                    self._selector.unregister(key.data.sock)


def run(rounds: int) -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < REGISTRATIONS + 500:
        raise RuntimeError(f"{REGISTRATIONS} registrations need more open files than {hard}; raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, REGISTRATIONS + 500), hard))
    memory: list[float] = []
    busy: list[float] = []
    idle: list[float] = []
    with stack(HOSTLER_WEB_WORKERS="1") as ours:
        web = _Web(ours)
        _look(ours, "/health")
        empty = _look(ours, "/route?model=bench-7", 404)
        idle.append(web.share(WINDOW_S))
        before = web.memory()
        with _registered(ours) as crowd:
            memory.append((web.memory() - before) / REGISTRATIONS / KIB)
            told_before = [one.alive for one in crowd.held]
            busy += [web.share(WINDOW_S) for _ in range(rounds)]
            least = min(one.alive - told for one, told in zip(crowd.held, told_before, strict=True))
            pair = alternate(
                lambda: _look(ours, "/route?model=bench-7").p50_ms, lambda: _look(ours, "/health").p50_ms, rounds
            )
            if crowd.open != REGISTRATIONS:
                raise RuntimeError(f"only {crowd.open} of {REGISTRATIONS} registrations stayed open")
            opened_s = crowd.opened_s
    route = result(
        "registry, /route",
        pair,
        unit="ms p50",
        goal="<= 1.5x of /health",
        ok=pair.ratio <= 1.5,
        with_no_registration_ms=empty.p50_ms,
        load="one connection through the door",
    )
    shares = Pair(tuple(100 * one for one in busy), tuple(100 * one for one in idle * rounds))
    kept = result(
        "registry, keep-alives",
        shares,
        unit="% of a core",
        goal="<= 5 more",
        ok=shares.medians[0] - shares.medians[1] <= 5,
        least_keep_alives_of_one=least,
        window_s=WINDOW_S,
    )
    each = memory[0]
    notes = {
        "registrations": REGISTRATIONS,
        "registered_per_s": round(REGISTRATIONS / opened_s),
        "pinned": "nothing",
        "warmed": "the same routes",
        "load_not_the_limit": "registrars only read; /route and /health are asked by one connection",
    }
    held = Result("registry", each, 20.0, each / 20, "<= 20 KiB each", each <= 20, "KiB", 1, notes)
    return joined("registry", [held, kept, route])


@contextlib.contextmanager
def _registered(ours: Stack) -> Iterator[Registrars]:
    crowd = Registrars(ours, REGISTRATIONS)
    try:
        yield crowd
    finally:
        crowd.close()


def _look(ours: Stack, path: str, status: int = 200) -> Report:
    spec = Spec(ours.port, path=path, headers={"X-API-Key": ours.key}, connections=1, seconds=LOOK_S)
    found = load(spec)
    if set(found.statuses) != {str(status)}:
        raise RuntimeError(f"{path} answered {found.statuses}")
    return found


class _Web:
    """The API's processes: one that serves, and its parent."""

    def __init__(self, ours: Stack) -> None:
        self._processes = [psutil.Process(pid) for pid in ours.pids("web")]

    def memory(self) -> float:
        return float(sum(process.memory_info().rss for process in self._processes))

    def share(self, seconds: float) -> float:
        before, began = self._cpu_s(), time.monotonic()
        time.sleep(seconds)
        return (self._cpu_s() - before) / (time.monotonic() - began)

    def _cpu_s(self) -> float:
        return sum(times.user + times.system for times in (process.cpu_times() for process in self._processes))
