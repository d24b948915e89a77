"""Output that lies on another host, or that only a backend has: read as an agent copies it, while it is wanted.

A reader joins the copy that goes through its place, or begins one there; says now and then that it still reads; and
comes back behind what it gave when the copy was dropped meanwhile. So many readers cost one copy, and a slow one costs
nobody anything. Nothing here waits for the agent: who reads says when to look again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from sqlalchemy import text

from app.db.repos import log_copies
from app.db.repos.newer import knows_services
from app.stack.secrets import secret_key
from app.usecases.context import Context
from app.usecases.log_lines import Line, as_text, without_key
from app.usecases.nodes import SILENT_S

#: Topic on which agents hear that somebody wants something.
WANTED = "logs"
#: Between two looks when no signal comes, and between two words that it is read still.
LOOK_S = 5.0
RENEW_S = 10.0
#: An agent that has sent nothing for so long is not waited for by whom its answer holds up.
GIVE_UP_S = 10.0
#: Between two tries to join when all copies are taken.
JOIN_AGAIN_S = 1.0
#: A reader says at once how far it is when it is so far ahead of what is known: the copier waits for it.
UNREAD_BYTES = 256 * 1024
#: Longer words of a backend are not given to clients: what comes back must fit their headers.
LONGEST_PLACE = 400
#: In the place of a place: before the last so many lines. Which place that is, the copier asks the backend.
_TAIL = re.compile(r"tail ([0-9]{1,8})", re.ASCII)
_PLACE = re.compile(r"f([0-9]{1,18})\.([A-Za-z0-9_-]*)\.([0-9a-f]{20})", re.ASCII)


def is_far(ctx: Context, found: Any) -> bool:
    """Whether an agent must be asked for the output of an attempt, of which there is no file here."""
    if not found.name or found.launching_at is None or _is_own(ctx, found):
        return False
    with ctx.database.read() as connection:
        return knows_services(connection)


def _is_own(ctx: Context, found: Any) -> bool:
    return found.backend == "process" and found.node == ctx.settings.node_name


class FarLog:
    """One attempt's output as far as it was read here. Close it."""

    def __init__(
        self,
        ctx: Context,
        found: Any,
        *,
        behind: str | None = None,
        tail: int | None = None,
        patience_s: float | None = None,
    ) -> None:
        """From ``behind``, a line's place, on; else, with ``tail``, the last so many lines first; else all."""
        self._ctx, self._attempt_id, self._name, self._node = ctx, found.attempt_id, found.name, found.node
        self._patience_s = GIVE_UP_S if patience_s is None else patience_s
        #: behind the last line that was given: a place of the backend's, and how many bytes follow it
        seen = place_of(ctx, found.name, behind)
        self._tail: deque[Line] | None = deque(maxlen=tail) if tail is not None and behind is None else None
        self._given = seen or ("" if self._tail is None else tail_words(tail or 0), 0)
        self._copy: int | None = None
        self._stack = ExitStack()
        self._changed: Any = None
        self._looked_at = self._renewed_at = self._joined_at = float("-inf")
        self._alive_at = time.monotonic()
        #: where the next chunk begins: for the backend, in bytes of the copy, and what of it was given already
        self._place, self._position, self._skip = "", 0, 0
        #: half a line so far, and what the copier saw of it beyond
        self._line, self._rest = b"", b""
        self._asked: int | None = None
        self._finishing = False
        self._size = -1
        #: what was there when it was asked has been given
        self._is_at_end = False
        #: nothing more comes, and all was given
        self.done = False
        #: something was given, here or on the stream that broke
        self.has_spoken = seen is not None
        #: why the agent copies nothing now
        self.message = ""
        #: an agent has it in hand, as far as was seen
        self._is_taken = False

    @property
    def given_up(self) -> bool:
        """Whether the end is waited for and nothing has come for long."""
        return self._finishing and not self.done and time.monotonic() - self._alive_at >= self._patience_s

    def finish(self) -> None:
        """Nothing is written any more, or only what is there now is wanted: ``done`` is set once that was given."""
        if not self._finishing:
            self._finishing, self._alive_at = True, time.monotonic()
            self._asked, self._is_at_end = None, False
            self._renewed_at = self._looked_at = float("-inf")

    @property
    def away(self) -> str:
        """For people: that it cannot be read now, and why as far as it is known."""
        silent = "the agent that copies it has no answer yet from where it lies"
        why = self.message or (silent if self._is_taken else "no agent there copies it")
        return (
            f"The log of {self._name} lies where it cannot be read now: {why}."
            " Try again; `hostler node list` and `hostler doctor` say how the hosts are."
        )

    def forget(self) -> None:
        """There is no such attempt any more."""
        self.done = True

    def give_up_if_silent(self) -> None:
        """Wait no longer for a host of which nothing was heard for long."""
        query = text(
            "SELECT heartbeat_at < hostler_now() - make_interval(secs => :silent_s) FROM nodes WHERE name = :node"
        )
        with self._ctx.database.read() as connection:
            if connection.execute(query, {"node": self._node, "silent_s": SILENT_S}).scalar():
                self.message = f"nothing is heard of its host {self._node}"
                self._alive_at = float("-inf")

    def wait(self, timeout_s: float) -> bool:
        """Until something may have come."""
        if self._changed is None:
            self._ctx.signals.rest(timeout_s)
            return False
        if self._changed.wait(timeout_s):
            self._looked_at = float("-inf")
            return True
        return False

    def new_lines(self) -> Iterator[Line]:
        """What came since the last time. The database is asked when it was signalled, or after a while."""
        if self._changed is not None and self._changed.wait(0):
            self._looked_at = float("-inf")
        now = time.monotonic()
        if self.done or now - self._looked_at < LOOK_S or not self._keep(now):
            return
        self._looked_at = now
        while self._copy is not None:
            position = self._position
            yield from self._read(self._copy)
            if self._position == position:
                break
        if not self._is_at_end:
            return
        if self._finishing and (rest := self._line + self._rest):
            yield from self._give(rest)
        yield from self.rest_of_tail()
        self.done = self._finishing

    def rest_of_tail(self) -> Iterator[Line]:
        """Of the tail that was asked for, what was seen of it; from now on every line is given."""
        kept, self._tail = self._tail or (), None
        yield from kept

    def close(self) -> None:
        self._stack.close()
        self._changed = None

    def _keep(self, now: float) -> bool:
        """Have a copy, and say that it is read; False when there is none yet."""
        if self._copy is None:
            return now - self._joined_at >= JOIN_AGAIN_S and self._join(now)
        if now - self._renewed_at >= RENEW_S or (self._finishing and self._asked is None):
            return self._renew(now)
        return True

    def _join(self, now: float) -> bool:
        self._joined_at = now
        place, offset = self._given
        with self._ctx.database.begin() as connection:
            found = log_copies.join(connection, self._attempt_id, place)
        if found is None:
            self.message = "too many readers are at other places of this log"
            return False
        self._copy, self._position, self._place, self._skip = found.id, found.position, place, offset
        self._line = b""
        self._asked, self._size = None, -1
        self.close()
        self._changed = self._stack.enter_context(self._ctx.signals.subscribe(topic(found.id)))
        return self._renew(now)

    def _renew(self, now: float) -> bool:
        assert self._copy is not None
        ask = self._asked is None
        with self._ctx.database.begin() as connection:
            asked = log_copies.renew(connection, self._copy, self._position, ask=ask)
        if asked is None:
            self._copy = None
            self._joined_at = float("-inf")
            return self._join(now) if ask else False
        self._renewed_at = now
        if ask:
            self._asked = asked
            self._ctx.notify(WANTED)
        return True

    def _read(self, copy_id: int) -> Iterator[Line]:
        with self._ctx.database.read() as connection:
            rows = log_copies.news(connection, copy_id, self._position)
        if not rows or (rows[0].size_bytes > self._position and rows[0].starts != self._position):
            # it was dropped, or what comes next was: another one goes on behind what was given
            self._copy, self._joined_at, self._looked_at = None, float("-inf"), float("-inf")
            return
        stands = rows[0]
        if stands.began is not None and tail_of(self._place) is not None:
            # from here on what was given is known by where it lies, not by what was the end then
            self._place = stands.began
            self._given = (stands.began, 0) if tail_of(self._given[0]) is not None else self._given
        if stands.size_bytes != self._size or (self._asked or 0) <= stands.answered:
            self._size, self._alive_at = stands.size_bytes, time.monotonic()
        self.message, self._is_taken = stands.message, stands.is_taken
        for row in rows:
            if row.starts is not None:
                yield from self._take(row)
        if self._position - stands.read_bytes >= UNREAD_BYTES:
            self._renew(time.monotonic())
            self._ctx.notify(WANTED)
        answered = self._asked is not None and stands.answered >= self._asked
        self._is_at_end, self._rest = answered and self._position == stands.size_bytes, bytes(stands.rest)

    def _take(self, row: Any) -> Iterator[Line]:
        data = bytes(row.data)
        self._position += len(data)
        if row.gap:
            self._line, self._skip = b"", 0
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        offset = skipped
        for piece in _pieces(data[skipped:]):
            offset += len(piece)
            self._line += piece
            if self._line.endswith(b"\n"):
                self._given = (row.place, 0) if offset == len(data) else (self._place, offset)
                line, self._line = self._line, b""
                yield from self._give(line)
        self._place = row.place

    def _give(self, line: bytes) -> Iterator[Line]:
        self.has_spoken = True
        told = Line(without_key(self._ctx, as_text(line)), token(self._ctx, self._name, self._given))
        if self._tail is None:
            yield told
        else:
            self._tail.append(told)


def tail_words(lines: int) -> str:
    """What stands in the place of a place for the last ``lines`` lines, or some more: those who want about as many
    share one copy."""
    return f"tail {1 << (lines - 1).bit_length() if lines else 0}"


def tail_of(place: str) -> int | None:
    """How many lines such words mean; None for a place."""
    match = _TAIL.fullmatch(place)
    return int(match[1]) if match else None


def topic(copy_id: int) -> str:
    """On which readers hear that a copy has changed."""
    return f"log:{copy_id}"


def token(ctx: Context, name: str, given: tuple[str, int]) -> str:
    """A place for clients; empty when it is too long for them. Signed: what comes back is handed to a backend."""
    place, offset = given
    if len(place) > LONGEST_PLACE:
        return ""
    words = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    return f"f{offset}.{words}.{_signature(ctx, name, place, offset)}"


def place_of(ctx: Context, name: str, behind: str | None) -> tuple[str, int] | None:
    """The place that a token of ours says; None for what is none, or is one of another attempt."""
    match = _PLACE.fullmatch((behind or "")[: 2 * LONGEST_PLACE])
    if match is None:
        return None
    try:
        place = base64.b64decode(match[2] + "=" * (-len(match[2]) % 4), b"-_", validate=True).decode()
    except ValueError:
        return None
    offset = int(match[1])
    return (place, offset) if hmac.compare_digest(match[3], _signature(ctx, name, place, offset)) else None


def _signature(ctx: Context, name: str, place: str, offset: int) -> str:
    words = f"log {name} {offset} {place}".encode()
    return hmac.new(secret_key(ctx.settings).encode(), words, hashlib.sha256).hexdigest()[:20]


def _pieces(data: bytes) -> list[bytes]:
    """Split at line ends only, each with its own; the last may lack it."""
    pieces = data.split(b"\n")
    return [piece + b"\n" for piece in pieces[:-1]] + ([pieces[-1]] if pieces[-1] else [])
