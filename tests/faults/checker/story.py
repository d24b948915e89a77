"""A small stack that never was, written by hand: rows, journal, streams and one real engine, all as they should be.

Tests spoil one thing of it and ask the checker. Replica ``A`` is ready on the mock backend, ``B`` was stopped, ``C``
is ready and has a process that listens on its port.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.harness import world
from tests.faults.harness.checker import check, streams
from tests.faults.harness.facts import RunFacts, StackFacts
from tests.support.embedded import plain_url, wait_until

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
SEED = 7
OWNER = "000000000000"
UP = ("pending", "scheduling", "preparing", "starting", "waiting_for_ready", "ready")
DOWN = (*UP, "stopping", "stopped")
#: What listens: an engine as the checker sees it.
_ENGINE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


def name_of(replica: str) -> str:
    return f"hostler-test-{replica}-1"


class Story:
    """The stack that never was, and what the checker says of it."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.connection = psycopg.connect(plain_url(database_url), autocommit=True)
        stack = StackFacts(folder, self.state_dir, plain_url(database_url), "http://127.0.0.1:1", "key")
        self.run = RunFacts(stack, SEED, time.time(), time.time(), 0, 0, converged=True)
        self.engines: list[subprocess.Popen[bytes]] = []
        self.heard: list[str] | None = None

    def sql(self, query: str, *values: Any) -> None:
        self.connection.execute(query, values or None)

    def journal(self, op: str, **more: Any) -> None:
        self._line("journal.jsonl", seed=SEED, t=time.monotonic(), op=op, **more)

    def sighting(self, op: str, **more: Any) -> None:
        self._line("sightings.jsonl", op=op, **more)

    def asked(self, number: int, path: str, key: str | None = None, **answer: Any) -> None:
        """A request, and what came back (nothing: lost)."""
        self.journal("request", id=number, method="POST", path=path, body={}, key=key)
        if answer:
            headers = {"Content-Type": answer.pop("content_type", "application/json"), **answer.pop("headers", {})}
            self.journal("answer", id=number, status=answer.pop("status"), headers=headers, body=answer)
        else:
            self.journal("lost", id=number, why="test")

    def replica(self, replica: str, path: tuple[str, ...], backend: str, number: int) -> None:
        """A replica that went along ``path``, created by request ``number``, with one attempt and its leases."""
        state, pool, ended = path[-1], "local" if backend == "process" else "mock", path[-1] in ("stopped", "failed")
        released = "now()" if ended else "NULL"
        self.sql(
            "INSERT INTO replicas (id, owner, pool, backend, engine, server_mode, model_name, priority, state,"
            f" released_at) VALUES (%s, %s, %s, %s, 'mock', 'replica_mock', 'm', 2, %s, {released})",
            *(replica, OWNER, pool, backend, state),
        )
        self.sql(
            f"INSERT INTO attempts (replica_id, number, name, pool, backend, released_at)"
            f" VALUES (%s, 1, %s, %s, %s, {released})",
            *(replica, name_of(replica), pool, backend),
        )
        self.task(f"create-{replica}", replica, "create", "succeeded", f"f-{SEED}-{number}")
        self.lease("slot", pool, number, replica, ended=ended)
        for one, other in zip((None, *path), path, strict=False):
            self.step(replica, one, other, f"f-{SEED}-{number}" if one is None else "")
        self.event("task_succeeded", replica, task=f"create-{replica}")
        if ended:
            self.event("released", replica)

    def task(self, task: str, replica: str, kind: str, state: str, request: str = "", **columns: str) -> None:
        ended = "NULL" if state in ("queued", "running") else "now()"
        names, values = "".join(f", {name}" for name in columns), "".join(f", {value}" for value in columns.values())
        self.sql(
            "INSERT INTO tasks (id, kind, state, priority, pool, replica_id, attempt, owner, request_id,"
            f" finished_at{names}) VALUES (%s, %s, %s, 2, 'mock', %s, 1, %s, %s, {ended}{values})",
            *(task, kind, state, replica, OWNER, request),
        )

    def lease(self, kind: str, scope: str, number: int, replica: str, *, ended: bool = False) -> None:
        self.sql(
            "INSERT INTO units (kind, scope, number) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", kind, scope, number
        )
        self.sql(
            "WITH l AS (INSERT INTO leases (kind, scope, number, attempt_id, holder, released_at)"
            f" SELECT %s, %s, %s, id, name, {'released_at' if ended else 'NULL'} FROM attempts WHERE name = %s"
            " RETURNING id, kind, scope, number, released_at) UPDATE units u SET lease_id = l.id FROM l"
            " WHERE l.released_at IS NULL AND (u.kind, u.scope, u.number) = (l.kind, l.scope, l.number)",
            *(kind, scope, number, name_of(replica)),
        )

    def step(self, replica: str, one: str | None, other: str, request: str = "", reason: str | None = None) -> None:
        self.event("transition", replica, one=one, other=other, request=request, reason=reason)

    def event(
        self,
        kind: str,
        replica: str,
        *,
        task: str | None = None,
        one: str | None = None,
        other: str | None = None,
        request: str = "",
        reason: str | None = None,
    ) -> None:
        self.sql(
            "INSERT INTO events (kind, replica_id, attempt, task_id, actor, cause, from_state, to_state, request_id,"
            " reason) VALUES (%s, %s, 1, %s, 'tester', 'test', %s, %s, %s, %s)",
            *(kind, replica, task, one, other, request, reason),
        )

    def engine(self, replica: str, port: int) -> subprocess.Popen[bytes]:
        """A process as an engine of that replica would be, listening."""
        name = name_of(replica)
        folder = self.state_dir / "attempts" / name
        folder.mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ENGINE, str(port)],
            env={"HOSTLER_MARK": name, "HOME": str(folder), "PATH": os.environ["PATH"]},
            start_new_session=True,
        )
        self.engines.append(process)
        wait_until(lambda: process.pid in world.listeners().get(port, ()), 30, "the engine listening")
        (folder / "engine.json").write_text(json.dumps({"pid": process.pid, "start": world.identity(process.pid)}))
        return process

    def told(self) -> list[str]:
        """The events as a stream should tell them."""
        query = "SELECT xid::text || '-' || id FROM events ORDER BY xid, id"
        return [row[0] for row in self.connection.execute(query)]

    def findings(self) -> set[str]:
        """What the checker says, as ``rule: text``."""
        for place in self.told() if self.heard is None else self.heard:
            self._line("streams.jsonl", stream=streams.streams.EVERYTHING, op="event", id=place)
        return {f"{finding.rule}: {finding.text}" for finding in check(self.run)}

    def unrested(self) -> None:
        self.run = replace(self.run, converged=False)

    def _line(self, file: str, **line: Any) -> None:
        with open(self.folder / file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({"at": time.time(), **line}) + "\n")


@contextmanager
def good_story(database_url: str, folder: Path) -> Iterator[Story]:
    """Nothing is wrong with it."""
    story = Story(database_url, folder)
    (story.state_dir / "attempts").mkdir(parents=True)
    (folder / "starts").mkdir()
    port = free_port()
    try:
        story.sql(
            "INSERT INTO keys (id, name, hash, prefix, role) VALUES (%s, 'k', repeat('A', 64), 'x', 'admin')", OWNER
        )
        for number, (replica, path, backend) in enumerate(((A, UP, "mock"), (B, DOWN, "mock"), (C, UP, "process")), 1):
            story.replica(replica, path, backend, number)
            key = f"key-{number}"
            told = {"replica_id": replica, "task_id": f"create-{replica}"}
            story.asked(number, "/api/v1/replicas", key, status=202, **told)
            story.sql(
                "INSERT INTO idempotency (owner, method, path, key, body_hash, outcome)"
                " VALUES (%s, 'POST', '/api/v1/replicas', %s, 'x', %s)",
                *(OWNER, key, json.dumps(told)),
            )
        story.lease("port", "node", port, C)
        story.sql("UPDATE replicas SET port = %s WHERE id = %s", port, C)
        engine = story.engine(C, port)
        ref = json.dumps({"ref": {"pid": engine.pid, "start": world.identity(engine.pid)}})
        story.sql("UPDATE attempts SET port = %s, backend_ref = %s WHERE replica_id = %s", port, ref, C)
        (folder / "starts" / name_of(C)).write_text(f"{engine.pid} process\n")
        story.sighting("seen", attempt=name_of(C), pid=engine.pid, start=world.identity(engine.pid), leads=True)
        yield story
    finally:
        for process in story.engines:
            process.kill()
            process.wait(30)
        story.connection.close()


@pytest.fixture
def story(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    # nobody catches up here
    monkeypatch.setattr(streams, "CATCH_UP_S", 0)
    with good_story(database_url, tmp_path) as made:
        yield made


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
