"""What was heard of an engine that says numbers (``places/talker.py``), and what it says itself how far it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_NUMBER = re.compile(r"talks ([0-9a-f]{8}) ([0-9]+)")


@dataclass
class Speech:
    """``heard``: ``[token, first, last]`` of each row of numbers that follow each other. A token is of one start."""

    heard: list[tuple[str, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, lines: Iterable[str]) -> Speech:
        speech = cls()
        for line in lines:
            speech.hear(line)
        return speech

    def hear(self, line: str) -> None:
        """Lines of others are none of it."""
        found = _NUMBER.fullmatch(line.strip())
        if found is None:
            return
        token, number = found[1], int(found[2])
        if self.heard and self.heard[-1][0] == token and self.heard[-1][2] + 1 == number:
            self.heard[-1] = (token, self.heard[-1][1], number)
        else:
            self.heard.append((token, number, number))

    def reaches(self, said: tuple[str, int] | None) -> bool:
        """Whether it is heard up to there."""
        return said is None or any(token == said[0] and last >= said[1] for token, _, last in self.heard)


def said(folder: Path, attempt: str) -> tuple[str, int] | None:
    """How far the newest start of that attempt is, by its own note: ``(token, number)``."""
    try:
        words = (folder / "talks" / attempt).read_text().split()
        return words[0], int(words[1])
    except (OSError, IndexError, ValueError):
        return None
