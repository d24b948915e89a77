"""What a container wrote, as its daemon kept it: lines, and parts from a place on."""

from __future__ import annotations

import re
from collections import deque
from contextlib import closing
from datetime import UTC, datetime

from workers.backends.base import LogPart
from workers.backends.docker_daemon import Daemon
from workers.backends.output import as_lines

#: ``SECOND:COUNT:BYTES``: of what was written in that second, COUNT pieces were given, and BYTES of the next one.
_PLACE = re.compile(r"([0-9]{1,15}):([0-9]{1,15}):([0-9]{1,15})")


def read_lines(daemon: Daemon, container: str, tail: int | None, most_bytes: int, timeout_s: float) -> list[str]:
    """The last ``tail`` lines, or all; of both no more than the last ``most_bytes``."""
    if tail == 0:
        return []
    kept: deque[bytes] = deque()
    size = 0
    for piece in daemon.log(container, timeout_s, tail="all" if tail is None else str(tail)):
        kept.append(piece)
        size += len(piece)
        while size - len(kept[0]) >= most_bytes:
            size -= len(kept.popleft())
    return as_lines(b"".join(kept))[-tail if tail else None :]


def read_part(daemon: Daemon, container: str, place: str, limit: int, timeout_s: float) -> LogPart:
    """Output from ``place`` on. Daemons find it again by time alone, of which some tell only seconds."""
    reader = _Reader(place, limit)
    wanted = {"since": str(reader.second)} if reader.second else {}
    with closing(daemon.log(container, timeout_s, timestamps="true", **wanted)) as pieces:
        for piece in pieces:
            if not reader.take(*_stamped(piece)):
                break
    return reader.part()


def tail_place(daemon: Daemon, container: str, lines: int, timeout_s: float) -> str:
    """The place for ``read_part`` before the last ``lines`` lines. Only what was written since their second is read."""
    with closing(daemon.log(container, timeout_s, timestamps="true", tail=str(max(1, lines)))) as pieces:
        first = next(pieces, None)
    if first is None:
        return ""
    #: where each of the last lines begins: its second, and how many pieces of that second come before
    begins: deque[tuple[int, int]] = deque(maxlen=lines)
    second, count, is_new = 0, 0, True
    with closing(daemon.log(container, timeout_s, timestamps="true", since=str(_stamped(first)[0]))) as pieces:
        for piece in pieces:
            at, text = _stamped(piece)
            count = count if at == second else 0
            second = at
            if is_new:
                begins.append((second, count))
            count, is_new = count + 1, text.endswith(b"\n")
    if not second:
        return ""
    second, count = begins[0] if begins else (second, count)
    return f"{second}:{count}:0"


class _Reader:
    """Goes over pieces of output, skips what was given before and keeps as much as is wanted."""

    def __init__(self, place: str, limit: int) -> None:
        found = _PLACE.fullmatch(place)
        self._place = place
        self._limit = limit
        self._data = bytearray()
        self._gap = bool(place) and found is None
        #: the place, as numbers, and how many pieces of its second came by
        self.second, self._given, self._within = (int(part) for part in found.groups()) if found else (0, 0, 0)
        self._seen = 0

    def take(self, at: int, text: bytes) -> bool:
        """Whether there is room for more."""
        if at < self.second:
            return True
        if at > self.second:
            # of the second that was asked for less is kept than was given
            self._gap = self._gap or self._given > self._seen or bool(self._within)
            self.second, self._given, self._within, self._seen = at, 0, 0, 0
        self._seen += 1
        if self._seen <= self._given:
            return True
        rest = text[self._within :]
        part = rest[: self._limit - len(self._data)]
        self._data += part
        if len(part) < len(rest):
            self._within += len(part)
            return False
        self._given, self._within = self._seen, 0
        return len(self._data) < self._limit

    def part(self) -> LogPart:
        """What was kept, and where the next part begins."""
        if not self._data and not self._gap:
            return LogPart(b"", self._place)
        return LogPart(bytes(self._data), f"{self.second}:{self._given}:{self._within}", self._gap)


def _stamped(piece: bytes) -> tuple[int, bytes]:
    stamp, _, text = piece.partition(b" ")
    # seconds are enough, and the only thing that all daemons write
    at = datetime.fromisoformat(stamp[:19].decode("ascii", "replace")).replace(tzinfo=UTC)
    return int(at.timestamp()), text
