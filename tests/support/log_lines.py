"""Lines of a log that is read or followed; None among them says that nothing came for a while."""

from __future__ import annotations

from collections.abc import Iterator

from app.usecases import logs


def take(lines: Iterator[logs.Line | None], count: int) -> list[logs.Line]:
    """The next ``count`` lines, waited for."""
    found: list[logs.Line] = []
    while len(found) < count:
        line = next(lines)
        if line is not None:
            found.append(line)
    return found


def texts(lines: Iterator[logs.Line | None]) -> list[str]:
    """What all lines up to the end say."""
    return [line.text for line in lines if line is not None]
