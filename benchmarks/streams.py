"""``streams``: 2,000 open event streams beside none; what they cost Postgres in queries, API and gateway in memory.

Counted by Postgres itself. While creates and stops go on: scans of the index of the history's order, which nothing but
streams (and retention, in both halves of a round) reads. While nothing goes on: transactions of the whole database.
"""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import psycopg

from benchmarks.result import Pair, Result, joined, result
from benchmarks.stack import Api, Stack, stack, wait_until

STREAMS = 2000
WINDOW_S = 20.0
#: Backends tell their counts at latest when they have been idle for ten seconds.
SETTLE_S = 11.0
PAUSE_S = 0.5
GOAL = "<= 1 query a second more, of all streams together; every stream sees every event"
MEMORY_GOAL = "<= 64 KiB each"
WISH = {"server_mode": "replica_mock", "model_name": "bench", "pool": "mock"}
KIB = 1024
TRANSACTIONS = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
HISTORY_READS = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'ix_events_order'"


@dataclass
class Stream:
    """One reader: the place it has seen, and how many events."""

    sock: socket.socket
    rest: bytes = b""
    seen: int = 0


class Crowd:
    """Streams read by one thread; what they say is only counted."""

    def __init__(self, ours: Stack, count: int) -> None:
        self._ours = ours
        self._selector = selectors.EpollSelector()
        self.streams = [self._open() for _ in range(count)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(10)
        for stream in self.streams:
            stream.sock.close()
        self._selector.close()

    @property
    def open(self) -> int:
        return len(self._selector.get_map())

    def _open(self) -> Stream:
        sock = socket.create_connection(("127.0.0.1", self._ours.port), timeout=30)
        sock.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: stack\r\nX-API-Key: {self._ours.key}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        head = sock.recv(4096)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a stream was refused: {head[:200]!r}")
        stream = Stream(sock)
        self._selector.register(sock, selectors.EVENT_READ, stream)
        return stream

    def _run(self) -> None:
        while not self._over.is_set():
            for key, _ in self._selector.select(0.2):
                data = key.data.sock.recv(262144)
                if not data:
                    self._selector.unregister(key.data.sock)
                    continue
                key.data.seen += (key.data.rest[-6:] + data).count(b"\nevent: ")
                key.data.rest = data[-6:]


def run(rounds: int) -> Result:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < STREAMS + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (STREAMS + 500, hard))
    with stack() as ours, psycopg.connect(ours.database_url, autocommit=True) as database:
        _churn(ours.api, 5.0)
        mine, floor, quiet, still, memory, told, behind_s = [], [], [], [], [], [], []
        for _ in range(rounds):
            still.append(_per_s(database, TRANSACTIONS, lambda: time.sleep(WINDOW_S)))
            floor.append(_per_s(database, HISTORY_READS, lambda: _churn(ours.api, WINDOW_S)))
            before = _memory(ours)
            crowd = Crowd(ours, STREAMS)
            try:
                time.sleep(SETTLE_S)
                seen_before = [stream.seen for stream in crowd.streams]
                memory.append((_memory(ours) - before) / STREAMS / KIB)
                quiet.append(_per_s(database, TRANSACTIONS, lambda: time.sleep(WINDOW_S)))
                mine.append(_per_s(database, HISTORY_READS, lambda: _churn(ours.api, WINDOW_S)))
                behind_s.append(_until_all_saw(crowd, seen_before))
                told.append(crowd.streams[0].seen - seen_before[0])
                if crowd.open != STREAMS:
                    raise RuntimeError(f"only {crowd.open} of {STREAMS} streams stayed open")
            finally:
                crowd.close()
            wait_until(lambda: _connections(ours) < 100, 60, "the streams are forgotten", every_s=0.5)
    events = {"events_each_saw": told, "last_stream_was_behind_s": [round(one, 2) for one in behind_s]}
    busy = _told("streams", Pair(tuple(mine), tuple(floor)), counted="scans of ix_events_order", **events)
    idle = _told("streams quiet", Pair(tuple(quiet), tuple(still)), counted="all transactions")
    each = sorted(memory)[len(memory) // 2]
    notes = {"rounds_kib": [round(one, 1) for one in memory]}
    held = Result("streams memory", each, 64.0, each / 64, MEMORY_GOAL, each <= 64, "KiB", rounds, notes)
    return joined("streams", [busy, idle, held])


def _told(name: str, pair: Pair, **notes: Any) -> Result:
    more = pair.medians[0] - pair.medians[1]
    return result(
        name,
        pair,
        unit="queries/s",
        goal=GOAL,
        ok=more <= 1,
        more_per_s=round(more, 3),
        streams=STREAMS,
        load_not_the_limit=f"a create and a stop each {PAUSE_S:g} s on both sides",
        pinned="nothing",
        warmed="5 s of the same creates",
        **notes,
    )


def _per_s(database: psycopg.Connection, counter: str, act: Callable[[], None]) -> float:
    time.sleep(SETTLE_S)
    before, started = _count(database, counter), time.monotonic()
    act()
    time.sleep(SETTLE_S)
    return (_count(database, counter) - before) / (time.monotonic() - started)


def _count(database: psycopg.Connection, counter: str) -> int:
    row = database.execute(counter.encode()).fetchone()
    assert row is not None
    return int(row[0])


def _churn(api: Api, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        replica_id = api.create(WISH)
        time.sleep(PAUSE_S / 2)
        api.must((200, 202), "POST", f"/api/v1/replicas/{replica_id}/stop", {"force": True})
        time.sleep(PAUSE_S / 2)


def _until_all_saw(crowd: Crowd, before: list[int]) -> float:
    """Seconds until every stream has seen as many events as the first one that saw all of the round."""
    most = max(stream.seen - seen for stream, seen in zip(crowd.streams, before, strict=True))

    def equal() -> bool:
        return all(stream.seen - seen == most for stream, seen in zip(crowd.streams, before, strict=True))

    return wait_until(equal, 30, f"each of {STREAMS} streams saw {most} events", every_s=0.05)


def _memory(ours: Stack) -> float:
    held = [*ours.pids("web"), *ours.pids("gateway")]
    return float(sum(psutil.Process(pid).memory_info().rss for pid in held))


def _connections(ours: Stack) -> int:
    return sum(len(psutil.Process(pid).net_connections("tcp")) for pid in ours.pids("gateway"))
