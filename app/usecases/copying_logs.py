"""What the agent does for readers elsewhere: copy the logs that somebody wants, as far as they read, masked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.db.repos import log_copies
from app.db.repos.newer import knows_services
from app.domain.masking import MASK
from app.usecases.context import Context
from app.usecases.far_logs import WANTED as WANTED
from app.usecases.far_logs import tail_of as tail_of
from app.usecases.far_logs import topic
from app.usecases.log_lines import secrets

#: What is copied before anybody has read it, and what stays of what was read, for slower readers.
AHEAD_BYTES = 1024 * 1024
KEEP_BYTES = 2 * 1024 * 1024
#: Of half a line, for readers who want what is there now.
REST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Piece:
    """Whole lines as a backend gave them, not masked yet; ``place`` is where they end."""

    data: bytes
    place: str
    gap: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a copy is."""

    place: str
    size_bytes: int
    read_bytes: int

    @property
    def is_ahead(self) -> bool:
        """Whether readers must read first."""
        return self.size_bytes - self.read_bytes >= AHEAD_BYTES


def take(ctx: Context, agent: str) -> Sequence[Any]:
    """The copies that this agent makes now, with what its backends must know; others take them when it is silent."""
    with ctx.database.begin() as connection:
        return log_copies.take(connection, agent, ctx.settings.node_name) if knows_services(connection) else []


def take_over(ctx: Context) -> None:
    """Do not wait until it is noticed that this host's last agent is gone. One that lives finds out when it writes."""
    with ctx.database.begin() as connection:
        if knows_services(connection):
            log_copies.take_over(connection, ctx.settings.node_name)


def give_back(ctx: Context, agent: str) -> None:
    """Another agent need not wait for this one's end to be noticed."""
    with ctx.database.begin() as connection:
        if knows_services(connection):
            log_copies.give_back(connection, agent)


def begin_at(ctx: Context, copy_id: int, at: Progress, place: str) -> Progress | None:
    """The copy that is to begin before some last lines begins at ``place``; None when another agent found it first."""
    with ctx.database.begin() as connection:
        begun = log_copies.begin_at(connection, copy_id, at.place, place)
    return Progress(place, 0, at.read_bytes) if begun else None


def append(ctx: Context, copy_id: int, at: Progress, piece: Piece) -> Progress | None:
    """Add what was read at ``at``; None when another agent went on meanwhile."""
    data = _masked(ctx, piece.data)
    with ctx.database.begin() as connection:
        read_bytes = log_copies.append(
            connection, copy_id, at.size_bytes, at.place, piece.place, data, piece.gap, KEEP_BYTES
        )
    if read_bytes is None:
        return None
    ctx.notify(topic(copy_id))
    return Progress(piece.place, at.size_bytes + len(data), read_bytes)


def answer(ctx: Context, copy_id: int, at: Progress, asked: int, rest: bytes) -> None:
    """There was no more than half a line, ``rest``, after everybody had asked who is counted in ``asked``."""
    with ctx.database.begin() as connection:
        is_news = log_copies.answer(connection, copy_id, at.place, asked, _masked(ctx, rest)[-REST_BYTES:])
    if is_news:
        ctx.notify(topic(copy_id))


def complain(ctx: Context, copy_id: int, message: str) -> None:
    """Why nothing can be copied now."""
    with ctx.database.begin() as connection:
        is_news = log_copies.complain(connection, copy_id, message)
    if is_news:
        ctx.notify(topic(copy_id))


def hidden(ctx: Context) -> list[bytes]:
    """What is masked, as it is in a log."""
    return [value.encode() for value in secrets(ctx)]


def _masked(ctx: Context, data: bytes) -> bytes:
    for value in hidden(ctx):
        data = data.replace(value, MASK.encode())
    return data
