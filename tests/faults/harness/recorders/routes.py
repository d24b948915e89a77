"""What HAProxy may route to, held against what is written down and against the leases, again and again.

Two things must never be seen. A gateway's row that keeps a port, while the port is leased to another attempt: one
statement reads both. And a server in HAProxy for which there is no row: rows are read before and after HAProxy is
asked, and only what is seen twice in a row counts, because a row may come and go with its server in between.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psycopg

from tests.faults.harness import world
from tests.faults.harness.facts import StackFacts
from tests.faults.harness.recorders.lines import Lines, read_lines

NAME = "routes.jsonl"
EVERY_S = 0.1
_ROWS = "SELECT server FROM gateway_servers"
_LEASED_TO_OTHERS = """
SELECT g.server, g.port, a.replica_id || '-' || a.number FROM gateway_servers g
JOIN units u ON u.kind = 'port' AND u.scope = g.node AND u.number = g.port
JOIN leases l ON l.id = u.lease_id JOIN attempts a ON a.id = l.attempt_id
WHERE (a.replica_id, a.number) <> (g.replica_id, g.attempt)
"""


class Routes:
    """One thread. Writes ``leased`` and ``unwritten``, once each."""

    def __init__(self, stack: StackFacts) -> None:
        self._stack = stack
        self._lines = Lines(stack.folder / NAME)
        self._told: set[tuple[str, str]] = set()
        self._suspect: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="routes", daemon=True)
        self._connection: psycopg.Connection[Any] | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(30)
        if self._connection is not None:
            self._connection.close()
        self._lines.close()

    def look(self) -> None:
        """One round. Raises psycopg.Error while the database does not answer."""
        connection = self._connect()
        for server, port, other in connection.execute(_LEASED_TO_OTHERS).fetchall():
            self._tell("leased", server, port=port, to=other)
        before = {row[0] for row in connection.execute(_ROWS)}
        shown = world.routed(self._stack.haproxy_socket)
        if shown is None:
            return
        after = {row[0] for row in connection.execute(_ROWS)}
        unwritten = {one.name for one in shown} - before - after
        for server in unwritten & self._suspect:
            self._tell("unwritten", server)
        self._suspect = unwritten

    def _tell(self, op: str, server: str, **more: Any) -> None:
        if (op, server) not in self._told:
            self._told.add((op, server))
            self._lines.write(op, server=server, **more)

    def _run(self) -> None:
        while not self._stopping.wait(EVERY_S):
            try:
                self.look()
            except psycopg.Error:
                if self._connection is not None:
                    self._connection.close()
                self._connection = None

    def _connect(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._stack.database_url, autocommit=True, connect_timeout=2)
        return self._connection


def read(folder: Path) -> list[dict[str, Any]]:
    return read_lines(folder / NAME)
