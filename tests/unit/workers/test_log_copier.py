"""Whole lines of a backend that gives as little at once as it may."""

from __future__ import annotations

from typing import cast

import pytest

from workers.backends.base import Backend, BackendError, Handle, LogPart
from workers.log_copier import _Source


class Stingy:
    """A log of which each read gives ``most`` bytes; ``spins``: it is another one at every look."""

    def __init__(self, said: bytes, most: int, *, spins: bool = False) -> None:
        self.said, self.most, self.spins = said, most, spins

    def read_log(self, handle: Handle, place: str = "", limit: int = 100, timeout_s: float = 5) -> LogPart:
        begin = int(place or 0)
        data = self.said[begin : begin + min(limit, self.most)]
        if self.spins:
            self.said = bytes(byte if byte == 10 else byte ^ 1 for byte in self.said)
        return LogPart(data, str(begin + len(data)))


def source(backend: Stingy) -> _Source:
    return _Source(cast(Backend, backend), Handle("stingy", "mark"))


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 7, 100])
@pytest.mark.parametrize(
    "said", [b"", b"one\n", b"half", b"one\ntwo\nhalf", b"one\n\n\ntwo\n", b"long" * 10 + b"\nhalf"]
)
def test_lines_are_whole_however_little_comes_at_once(said: bytes, most: int) -> None:
    reader, place, read = source(Stingy(said, most)), "", b""
    while (found := reader.read(place, [], is_over=False))[0].data:
        piece, _ = found
        assert piece.data.endswith(b"\n")
        place, read = piece.place, read + piece.data
    whole, end, half = said.rpartition(b"\n")
    assert (read, found[1]) == (whole + end, half)
    if half:
        last, rest = reader.read(place, [], is_over=True)
        assert (last.data, rest) == (half[: len(last.data)], b"")


def test_one_that_is_another_at_every_look_is_told() -> None:
    with pytest.raises(BackendError, match="rotated faster"):
        source(Stingy(b"one\nhalf", 100, spins=True)).read("", [], is_over=False)
