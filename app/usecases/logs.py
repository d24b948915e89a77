"""Output of an attempt, also after its end: from the host's own files, or from where it lies by an agent that copies it
(``far_logs``), else from the tail kept in the database."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import text

from app.db.repos import replicas
from app.domain.lifecycle import TERMINAL
from app.errors import LogAway, NotFound
from app.usecases.context import Context
from app.usecases.far_logs import FarLog, is_far
from app.usecases.log_lines import Line as Line
from app.usecases.log_lines import as_text, without_key

#: Between two looks at a file that is followed.
FOLLOW_S = 0.2
#: A signal may be lost; then the end of an attempt is noticed so much later.
LOST_S = 5.0
#: While nothing is written a follower gets a None so often, so that its connection is kept alive.
QUIET_S = 10.0


def read(
    ctx: Context,
    replica_id: str,
    attempt: int | None = None,
    tail: int | None = None,
    patience_s: float | None = None,
) -> Iterator[str]:
    """Lines with their ends, oldest first; the last ``tail`` of them when given. Raises NotFound, and LogAway.

    Before the launch there are none: that is an empty log, not an error. ``patience_s``: how long the host on which it
    lies may be silent.
    """
    found = _attempt(ctx, replica_id, attempt)
    far = not _has_file(ctx, found) and is_far(ctx, found)
    lines = _far_lines(ctx, found, tail, patience_s) if far else _lines(ctx, found)
    return iter(deque(lines, maxlen=tail)) if tail is not None else lines


def check(ctx: Context, replica_id: str, attempt: int | None = None) -> None:
    """Raises NotFound when there is no such replica or attempt."""
    _attempt(ctx, replica_id, attempt)


def follow(
    ctx: Context, replica_id: str, attempt: int | None = None, tail: int | None = None, behind: str | None = None
) -> Iterator[Line | None]:
    """What is there, then what is written, until the attempt is gone; None now and then while it is quiet.

    ``behind`` is the ``place`` of the last line that was seen; what was rotated away meanwhile is lost.
    """
    # whether it is over is in the database, which is asked when it changed; the file is only looked at
    with (
        closing(Follower(ctx, replica_id, attempt)) as follower,
        ctx.signals.subscribe(f"replica:{replica_id}") as changed,
    ):
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
            if follower.is_done:
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
        #: the attempt that came after it: its turn is when all of this one was read
        self._next: Any = None
        self._inode, self._offset = 0, 0
        self._seen = 0, 0
        self._begun = False
        self._tail_of = ""
        self._far: FarLog | None = None
        self._told_away = False
        #: whether nothing more is written, as of the last ``look``
        self.is_over = False

    @property
    def is_done(self) -> bool:
        """Whether nothing more comes: it is over, and what had to be fetched from elsewhere was given or given up."""
        return self.is_over and self._next is None and self._is_read

    def look(self) -> None:
        """Ask the database how it stands."""
        try:
            found = _attempt(self._ctx, self._replica_id, self._attempt)
        except NotFound:
            self.is_over, self._next = True, None
            if self._far is not None:
                self._far.forget()
        else:
            if self._found.name and found.name != self._found.name:
                self._next, self.is_over = found, False
            else:
                self._found, self.is_over = found, self._has_ended(found)
        self._finish_if_over()

    def close(self) -> None:
        """Give back what reading it holds."""
        if self._far is not None:
            self._far.close()
            self._far = None

    def begin(self, tail: int | None, behind: str | None) -> Iterator[Line]:
        """Go to where following begins, the first time: behind what was seen, else before the last ``tail`` lines."""
        if self._begun:
            return
        self._begun = True
        place = _parsed(behind)
        if not self._has_file and is_far(self._ctx, self._found):
            self._far = FarLog(self._ctx, self._found, behind=behind, tail=tail)
            self._finish_if_over()
            # of the tail in the database, should that be all there is
            self._offset = place[1] if place is not None and not place[0] else 0
        elif place is not None:
            self._inode, self._offset = place
        elif tail is not None:
            kept = deque(_lines(self._ctx, self._found), maxlen=tail)
            self._skip_to_end()
            yield from (Line(line, self._place) for line in kept)

    @property
    def _place(self) -> str:
        return f"{self._inode}-{self._offset}"

    def _finish_if_over(self) -> None:
        if self._far is not None and (self.is_over or self._next is not None):
            self._far.finish()

    @property
    def _is_read(self) -> bool:
        return self._far is None or self._far.done or self._far.given_up

    @property
    def _has_file(self) -> bool:
        return _has_file(self._ctx, self._found)

    def _has_ended(self, found: Any) -> bool:
        if found.released_at is not None:
            return self._attempt is not None or found.state in TERMINAL
        return found.name is None and found.state in TERMINAL

    def _skip_to_end(self) -> None:
        path = self._path()
        if path is not None and path.exists():
            stat = path.stat()
            self._inode, self._offset = stat.st_ino, stat.st_size
        elif path is not None:
            self._offset, self._tail_of = len(list(_lines(self._ctx, self._found))), self._found.name

    def new_lines(self) -> Iterator[Line]:
        """What was written since the last time, also by an attempt that came meanwhile."""
        yield from self._new_lines()
        while self._next is not None and self._is_read:
            self.close()
            self._found, self._next, self._told_away = self._next, None, False
            self.look()
            yield from self._new_lines()

    def _new_lines(self) -> Iterator[Line]:
        over = self.is_over or self._next is not None
        path = self._path()
        if path is None:
            return
        if self._far is not None:
            yield from self._far_lines(self._far)
            return
        if not path.exists():
            if self._inode:
                return
            if is_far(self._ctx, self._found):
                self._far = FarLog(self._ctx, self._found)
                self._finish_if_over()
                yield from self._far_lines(self._far)
            else:
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

    def _far_lines(self, far: FarLog) -> Iterator[Line]:
        yield from far.new_lines()
        if far.given_up:
            yield from far.rest_of_tail()
        if not far.has_spoken and (far.done or far.given_up):
            yield from self._rest_of_tail()
        if far.given_up and (far.has_spoken or not self._found.log_tail) and not self._told_away:
            # the stream ends without all of it
            self._told_away = True
            yield Line(f"({far.away})\n", "")

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
            yield Line(without_key(self._ctx, as_text(line)), self._place)

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
                "SELECT r.id, r.state, a.id AS attempt_id, a.name, a.node, a.number, a.launching_at, a.released_at,"
                " a.log_tail, a.backend FROM replicas r"
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
        yield from _tail_lines(found)
        return
    for path in files:
        with path.open("rb") as file:
            for line in file:
                yield without_key(ctx, as_text(line))


def _far_lines(ctx: Context, found: Any, tail: int | None, patience_s: float | None) -> Iterator[str]:
    """What is there now of a log that lies elsewhere, or the last lines of it."""
    with closing(FarLog(ctx, found, tail=tail, patience_s=patience_s)) as far:
        far.finish()
        far.give_up_if_silent()
        while not far.done and not far.given_up:
            yield from (line.text for line in far.new_lines())
            if not far.done:
                far.wait(FOLLOW_S)
        yield from (line.text for line in far.rest_of_tail())
        if not far.has_spoken and found.log_tail:
            yield from _tail_lines(found)
        elif not far.done and far.has_spoken:
            # what had been copied for others was given: too late for an error
            yield f"({far.away})\n"
        elif not far.done:
            raise LogAway(far.away)


def _tail_lines(found: Any) -> Iterator[str]:
    return (f"{line}\n" for line in found.log_tail.splitlines())


def _has_file(ctx: Context, found: Any) -> bool:
    return bool(found.name) and any((_folder(ctx, found) / name).exists() for name in ("log", "log.1"))


def _folder(ctx: Context, found: Any) -> Path:
    kind = "mock" if found.backend == "mock" else "attempts"
    return ctx.settings.state_dir / kind / found.name
