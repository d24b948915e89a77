"""Output of an attempt, also after its end: from the host's own files, else from the tail kept in the database."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import text

from app.db.repos import replicas
from app.domain.lifecycle import TERMINAL
from app.domain.masking import MASK
from app.errors import NotFound
from app.usecases.context import Context
from app.usecases.recipe_secrets import secret_values

#: Between two looks at a file that is followed.
FOLLOW_S = 0.2
#: A signal may be lost; then the end of an attempt is noticed so much later.
LOST_S = 5.0
#: While nothing is written a follower gets a None so often, so that its connection is kept alive.
QUIET_S = 10.0


def read(ctx: Context, replica_id: str, attempt: int | None = None, tail: int | None = None) -> Iterator[str]:
    """Lines with their ends, oldest first; the last ``tail`` of them when given. Raises NotFound.

    Before the launch there are none: that is an empty log, not an error.
    """
    found = _attempt(ctx, replica_id, attempt)
    lines = _lines(ctx, found)
    return iter(deque(lines, maxlen=tail)) if tail is not None else lines


@dataclass(frozen=True)
class Line:
    """One line of a followed log. ``place`` is where the next one begins: a broken stream goes on there."""

    text: str
    place: str


def follow(
    ctx: Context, replica_id: str, attempt: int | None = None, tail: int | None = None, behind: str | None = None
) -> Iterator[Line | None]:
    """What is there, then what is written, until the attempt is gone; None now and then while it is quiet.

    ``behind`` is the ``place`` of the last line that was seen; what was rotated away meanwhile is lost.
    """
    follower = Follower(ctx, replica_id, attempt)
    # whether it is over is in the database, which is asked when it changed; the file is only looked at
    with ctx.signals.subscribe(f"replica:{replica_id}") as changed:
        follower.look()
        asked_at = quiet_since = time.monotonic()
        yield from follower.begin(tail, behind)
        while True:
            wrote = False
            for line in follower.new_lines():
                wrote = True
                yield line
            if wrote:
                quiet_since = time.monotonic()
                continue
            if follower.is_over:
                return
            signalled = changed.wait(FOLLOW_S)
            now = time.monotonic()
            if now - quiet_since >= QUIET_S:
                quiet_since = now
                yield None
            if signalled or now - asked_at >= LOST_S:
                # asked before reading: what was written before the end is read after it
                follower.look()
                asked_at = now


class Follower:
    """One attempt's output as far as it was read. Never waits: who follows says when to look again."""

    def __init__(self, ctx: Context, replica_id: str, attempt: int | None) -> None:
        """Raises NotFound."""
        self._ctx, self._replica_id, self._attempt = ctx, replica_id, attempt
        self._found = _attempt(ctx, replica_id, attempt)
        self._inode, self._offset = 0, 0
        self._seen = 0, 0
        self._begun = False
        self._tail_of = ""
        #: whether nothing more is written, as of the last ``look``
        self.is_over = False

    def look(self) -> None:
        """Ask the database how it stands."""
        self.is_over = self._is_over()

    def begin(self, tail: int | None, behind: str | None) -> Iterator[Line]:
        """Go to where following begins, the first time: behind what was seen, else before the last ``tail`` lines."""
        if self._begun:
            return
        self._begun = True
        place = _parsed(behind)
        if place is not None:
            self._inode, self._offset = place
        elif tail is not None:
            kept = deque(_lines(self._ctx, self._found), maxlen=tail)
            self._skip_to_end()
            yield from (Line(line, self._place) for line in kept)

    @property
    def _place(self) -> str:
        return f"{self._inode}-{self._offset}"

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
        elif path is not None:
            self._offset, self._tail_of = len(list(_lines(self._ctx, self._found))), self._found.name

    def new_lines(self) -> Iterator[Line]:
        """What was written since the last time."""
        over = self.is_over
        path = self._path()
        if path is None:
            return
        if not path.exists():
            if not self._inode:
                # nothing is kept but the tail in the database, which is all there is to show
                yield from self._rest_of_tail()
            return
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            inode = found.st_ino
            if (inode, found.st_size) == self._seen and not over:
                # half a line, perhaps a long one: it is not read again and again while nothing comes
                return
            self._seen = inode, found.st_size
            if inode != self._inode:
                # rotated: what the old file got meanwhile is in log.1
                yield from self._rest_of_old(path.with_name("log.1"))
                self._inode, self._offset = inode, 0
            yield from self._read(file, over)

    def _rest_of_tail(self) -> Iterator[Line]:
        """Lines of the tail that were not given yet; in place of bytes of a file, lines are counted."""
        if self._tail_of != self._found.name:
            # another attempt, another tail; the first one may be gone on with
            self._offset = self._offset if not self._tail_of else 0
            self._tail_of = self._found.name
        for line in list(_lines(self._ctx, self._found))[self._offset :]:
            self._offset += 1
            yield Line(line, self._place)

    def _rest_of_old(self, path: Path) -> Iterator[Line]:
        if self._inode <= 0 or not path.exists():
            return
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_ino == self._inode:
                yield from self._read(file, True)

    def _read(self, file: BinaryIO, to_the_end: bool) -> Iterator[Line]:
        file.seek(self._offset)
        for line in file:
            if not line.endswith(b"\n") and not to_the_end:
                # the rest of it is still being written
                return
            self._offset += len(line)
            yield Line(without_key(self._ctx, _text(line)), self._place)

    def _path(self) -> Path | None:
        return _folder(self._ctx, self._found) / "log" if self._found.name else None


def _parsed(place: str | None) -> tuple[int, int] | None:
    inode, mark, offset = (place or "").partition("-")
    if not mark or not inode.isdecimal() or not offset.isdecimal() or len(place or "") > 40:
        return None
    return int(inode), int(offset)


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
                yield without_key(ctx, _text(line))


def without_key(ctx: Context, said: str) -> str:
    """What an engine said, the engine key and recipes' secrets masked: some log all their settings at their start."""
    said = said.replace(ctx.engine_key, MASK)
    for value in secret_values(ctx.settings):
        said = said.replace(value, MASK)
    return said


def _folder(ctx: Context, found: Any) -> Path:
    kind = "mock" if found.backend == "mock" else "attempts"
    return ctx.settings.state_dir / kind / found.name


def _text(line: bytes) -> str:
    decoded = line.decode("utf-8", "replace").replace("\0", "\ufffd")
    return decoded if decoded.endswith("\n") else decoded + "\n"
