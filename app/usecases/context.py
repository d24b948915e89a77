"""What every use case is given: where things are, who asks, and which request is asked again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from app.db.engine import Database
from app.settings import Settings
from app.usecases.signals import Signals, signals_of


@dataclass(frozen=True)
class Context:
    """The parts of one process. ``doorbell`` rings after a commit, ``cipher`` keeps user values secret at rest."""

    settings: Settings
    database: Database
    doorbell: Any = None
    cipher: Any = None

    @property
    def signals(self) -> Signals:
        return signals_of(self.database)


@dataclass(frozen=True)
class Actor:
    """Who asks. ``models`` are those the key may use; None is all."""

    key_id: str
    name: str
    role: str
    models: tuple[str, ...] | None = None
    request_id: str = ""

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


@dataclass(frozen=True)
class Idempotency:
    """A request that may be sent twice. ``body_hash`` tells the same request from another one under the same key."""

    key: str = field(repr=False)
    method: str
    path: str
    body_hash: str
