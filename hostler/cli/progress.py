"""What a person sees while something takes time: a spinner on a terminal, a line per change elsewhere. On stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hostler.cli.show import talk
from hostler.cli.text import clean, coarse, fine

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """Shows the present state of one thing. Use as a context manager; ``update`` as often as you like."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = time.monotonic()
        self._line = ""
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.status import Status

            self._status = Status(self._text(), console=Console(stderr=True, highlight=False))
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def step(self, line: str) -> None:
        """Something happened that is worth a line of its own."""
        self._line = line
        text = f"{self._title}: {clean(line)} (after {fine(time.monotonic() - self._began)})"
        if self._status is None:
            talk(text)
            return
        self._status.console.print(text, markup=False, emoji=False)
        self.refresh()

    def refresh(self) -> None:
        """Show the time that has passed."""
        if self._status is not None:
            self._status.update(self._text())

    def _text(self) -> str:
        from rich.markup import escape

        passed = coarse(time.monotonic() - self._began)
        return escape(f"{self._title}: {clean(self._line) or 'asked for'} ... {passed}")
