"""Writing values so that HAProxy reads them as they are."""

from __future__ import annotations

from collections.abc import Iterable


def quoted(value: str) -> str:
    """In strong quotes: nothing in it is special. Raises ValueError for what no quoting can carry."""
    if any(character in value for character in "\0\r\n"):
        raise ValueError("a line break or NUL cannot stand in the configuration")
    return "'" + value.replace("'", "'\"'\"'") + "'"


def literal(value: str) -> str:
    """For use inside a log-format string, where ``%`` starts a variable."""
    return value.replace("%", "%%")


def indented(lines: Iterable[str]) -> list[str]:
    """Lines of one section: its head as it is, the others below it."""
    head, *rest = lines
    return [head, *(f"    {line}" if line else "" for line in rest)]
