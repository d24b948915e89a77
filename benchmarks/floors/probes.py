"""Raw probes: one epoll loop over kept connections, then one UPDATE of all rows."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence

import psycopg

REQUEST = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CONNECTIONS = 256
UPDATE = """
UPDATE floor_probes SET status = new.status, at = now()
FROM unnest(%s::int[], %s::int[]) AS new (id, status) WHERE floor_probes.id = new.id
"""


def make_rows(database_url: str, count: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS floor_probes")
        connection.execute("CREATE TABLE floor_probes (id int PRIMARY KEY, status int, at timestamptz)")
        connection.execute("INSERT INTO floor_probes SELECT g, 0, now() FROM generate_series(1, %s) g", (count,))


def sweep(database_url: str, port: int, count: int) -> float:
    """Seconds to ask ``count`` times and to write every answer."""
    with psycopg.connect(database_url) as connection:
        started = time.perf_counter()
        statuses = _probe(port, count)
        connection.execute(UPDATE, (list(range(1, count + 1)), statuses))
        connection.commit()
        return time.perf_counter() - started


def _probe(port: int, count: int) -> Sequence[int]:
    selector = selectors.EpollSelector()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(min(CONNECTIONS, count))]
    statuses: list[int] = []
    asked = 0
    for sock in sockets:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ)
        sock.sendall(REQUEST)
        asked += 1
    while len(statuses) < count:
        for key, _ in selector.select(5.0):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            statuses.append(int(ready.recv(4096)[9:12]))
            if asked < count:
                ready.sendall(REQUEST)
                asked += 1
    for sock in sockets:
        sock.close()
    selector.close()
    return statuses
