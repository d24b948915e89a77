"""What a person sees while something takes time: a spinner on a terminal, a line per change elsewhere. On stderr."""

from __future__ import annotations

import sys
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self

from hostler.cli.show import talk
from hostler.cli.text import clean, fine

if TYPE_CHECKING:
    from rich.progress import Progress as Spinner


class Progress:
    """Shows the present state of one thing and how long it takes. Use as a context manager."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._first: datetime | None = None
        self._spinner: Spinner | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._spinner = _spinner()
            self._spinner.add_task(f"{self._title}: asked for")
            self._spinner.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._spinner is not None:
            self._spinner.stop()

    def step(self, line: str, at: datetime | None) -> None:
        """Something happened that is worth a line of its own: with the time since the first such thing."""
        text = f"{self._title}: {clean(line)}"
        told = text
        if at is not None and self._first is not None:
            told = f"{text} (after {fine((at - self._first).total_seconds())})"
        self._first = self._first or at
        if self._spinner is None:
            talk(told)
            return
        self._spinner.console.print(told, markup=False, emoji=False, soft_wrap=True)
        self._spinner.update(self._spinner.task_ids[0], description=text)


def _spinner() -> Spinner:
    from rich.console import Console
    from rich.progress import Progress as Spinner
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    # no markup: what it shows came from a server
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Spinner(*columns, console=Console(stderr=True, highlight=False), transient=True)
