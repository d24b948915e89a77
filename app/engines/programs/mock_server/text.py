"""Text that looks generated and is the same for the same prompt and seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_TEXT = """\
the engine stands ready on track nine while a signal turns green and the hostler checks water oil fire steam
before it rolls out again to carry its load over the hill at dawn
"""
_WORDS = tuple(_TEXT.split())
_VOCABULARY = 32000
_EMBEDDING_WIDTH = 64


def dice(seed: int) -> Iterator[float]:
    """Numbers in [0, 1) for ever. Importing ``random`` would cost a third of the program's start."""
    state = (seed * 2654435761 + 12345) & 0xFFFFFFFF
    while True:
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        yield state / 2**32


def words(prompt: str, seed: int, count: int) -> Iterator[str]:
    """``count`` tokens, each a word with its leading space."""
    numbers = dice(zlib.crc32(prompt.encode(), seed & 0xFFFFFFFF))
    for _ in range(count):
        yield " " + _WORDS[int(next(numbers) * len(_WORDS))]


def tokens(content: str) -> list[int]:
    """One id per word: the count is what matters."""
    return [zlib.crc32(word.encode()) % _VOCABULARY for word in content.split()]


def embedding(content: str, seed: int) -> list[float]:
    """A vector of length 1."""
    numbers = dice(zlib.crc32(content.encode(), seed & 0xFFFFFFFF))
    raw = [next(numbers) - 0.5 for _ in range(_EMBEDDING_WIDTH)]
    length = sum(value * value for value in raw) ** 0.5
    return [value / length for value in raw]
