"""Lines of output as readers see them: text, named by where the next one begins, secrets masked."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.masking import MASK
from app.usecases.context import Context
from app.usecases.recipe_secrets import secret_values


@dataclass(frozen=True)
class Line:
    """One line of a followed log. ``place`` is where the next one begins: a broken stream goes on there."""

    text: str
    place: str


def without_key(ctx: Context, said: str) -> str:
    """What an engine said, the engine key and recipes' secrets masked: some log all their settings at their start."""
    for value in secrets(ctx):
        said = said.replace(value, MASK)
    return said


def secrets(ctx: Context) -> tuple[str, ...]:
    """What no log may show, as far as this host knows."""
    return (ctx.engine_key, *secret_values(ctx.settings))


def as_text(line: bytes) -> str:
    """A line with its end, whatever was in it."""
    decoded = line.decode("utf-8", "replace").replace("\0", "\ufffd")
    return decoded if decoded.endswith("\n") else decoded + "\n"
