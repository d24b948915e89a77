"""HAProxy's configuration as text. Pure: nothing here reads or writes anything.

Each part is a module of its own, a function from ``Options`` to lines; this is the order in which they stand. Each line
that protects something has its reason as a comment beside it in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app.gateway.config import backends, door, inside, process, slots
from app.gateway.config.options import Options

__all__ = ["Options", "render"]

_HEAD = "# Written by app/gateway/config; what is changed here is lost at the next change of a route or setting."


def render(options: Options, servers: Mapping[str, Sequence[str]] | None = None) -> str:
    """The whole file. ``servers`` has the words after ``server`` by slot."""
    sections = (
        process.lines(options),
        door.lines(options),
        backends.lines(options),
        inside.lines(options),
        slots.lines(options, servers or {}),
    )
    return "\n\n".join("\n".join(section) for section in ([_HEAD], *sections)) + "\n"
