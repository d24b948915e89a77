"""Output of an attempt, also after its end: from the host's own files, else from the tail kept in the database."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import text

from app.db.repos import replicas
from app.domain.lifecycle import TERMINAL
from app.errors import NotFound
from app.usecases.context import Context

#: Between two looks at a file that is followed.
FOLLOW_S = 0.2
#: While nothing is written a follower gets a None so often, so that its connection is kept alive.
QUIET_S = 10.0


def read(ctx: Context, replica_id: str, attempt: int | None = None, tail: int | None = None) -> Iterator[str]:
    """Lines with their ends, oldest first; the last ``tail`` of them when given. Raises NotFound.

    Before the launch there are none: that is an empty log, not an error.
    """
    found = _attempt(ctx, replica_id, attempt)
    lines = _lines(ctx, found)
    return iter(deque(lines, maxlen=tail)) if tail is not None else lines


def follow(ctx: Context, replica_id: str, attempt: int | None = None, tail: int | None = None) -> Iterator[str | None]:
    """What is there, then what is written, until the attempt is gone; None now and then while it is quiet."""
    found = _attempt(ctx, replica_id, attempt)
    yield from _Follower(ctx, replica_id, attempt, found, tail).lines()


class _Follower:
    def __init__(self, ctx: Context, replica_id: str, attempt: int | None, found: Any, tail: int | None) -> None:
        self._ctx, self._replica_id, self._attempt, self._tail = ctx, replica_id, attempt, tail
        self._found = found
        self._inode, self._offset = 0, 0

    def lines(self) -> Iterator[str | None]:
        if self._tail is not None:
            yield from deque(_lines(self._ctx, self._found), maxlen=self._tail)
            self._skip_to_end()
        quiet_since = time.monotonic()
        while True:
            # asked before reading: what was written before the end is read after it
            over = self._is_over()
            wrote = False
            for line in self._new_lines():
                wrote = True
                yield line
            if over and not wrote:
                return
            if wrote:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= QUIET_S:
                quiet_since = time.monotonic()
                yield None
            if not wrote:
                time.sleep(FOLLOW_S)

    def _is_over(self) -> bool:
        try:
            self._found = _attempt(self._ctx, self._replica_id, self._attempt)
        except NotFound:
            return True
        if self._found.released_at is not None:
            return self._attempt is not None or self._found.state in TERMINAL
        return self._found.name is None and self._found.state in TERMINAL

    def _skip_to_end(self) -> None:
        path = self._path()
        if path is not None and path.exists():
            stat = path.stat()
            self._inode, self._offset = stat.st_ino, stat.st_size

    def _new_lines(self) -> Iterator[str]:
        path = self._path()
        if path is None or not path.exists():
            return
        with path.open("rb") as file:
            inode = path.stat().st_ino
            if inode != self._inode:
                # rotated: what the old file got meanwhile is in log.1
                yield from self._rest_of_old(path.with_name("log.1"))
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            for line in file:
                self._offset += len(line)
                yield _text(line)

    def _rest_of_old(self, path: Path) -> Iterator[str]:
        if self._inode and path.exists() and path.stat().st_ino == self._inode:
            with path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    yield _text(line)

    def _path(self) -> Path | None:
        return _folder(self._ctx, self._found) / "log" if self._found.name else None


def _attempt(ctx: Context, replica_id: str, number: int | None) -> Any:
    with ctx.database.read() as connection:
        row = connection.execute(
            text(
                "SELECT r.id, r.state, a.name, a.node, a.number, a.released_at, a.log_tail, a.backend FROM replicas r"
                " LEFT JOIN attempts a ON a.replica_id = r.id AND a.number = coalesce(:number, r.attempt)"
                " WHERE r.id = :id"
            ),
            {"id": replica_id, "number": number},
        ).first()
        known = replicas.read(connection, replica_id) if row is None else row
    if known is None or row is None:
        raise NotFound(f"There is no replica {replica_id}. See `hostler replica list`.")
    if number is not None and row.name is None:
        raise NotFound(
            f"Replica {replica_id} has no attempt {number}. `hostler replica get {replica_id}` lists its attempts."
        )
    return row


def _lines(ctx: Context, found: Any) -> Iterator[str]:
    if not found.name:
        return
    folder = _folder(ctx, found)
    files = [path for path in (folder / "log.1", folder / "log") if path.exists()]
    if not files:
        yield from (f"{line}\n" for line in found.log_tail.splitlines())
        return
    for path in files:
        with path.open("rb") as file:
            for line in file:
                yield _text(line)


def _folder(ctx: Context, found: Any) -> Path:
    kind = "mock" if found.backend == "mock" else "attempts"
    return ctx.settings.state_dir / kind / found.name


def _text(line: bytes) -> str:
    decoded = line.decode("utf-8", "replace").replace("\0", "\ufffd")
    return decoded if decoded.endswith("\n") else decoded + "\n"
