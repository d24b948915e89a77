"""What every use case is handed: settings, the database, the bell and the cipher. One per process."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet

from app.db.engine import Database
from app.db.identity import read_namespace
from app.settings import Settings
from app.stack.secrets import engine_key, secret_key
from app.stack.urls import broker_url, database_url
from app.usecases.depths import QueueDepths
from app.usecases.signals import Signals, notify, signals_of

if TYPE_CHECKING:
    from app.doorbell.bell import Doorbell


@dataclass(frozen=True)
class Actor:
    """Who asks: the key's id and role, and the request that carried it."""

    key_id: str
    name: str
    role: str
    models: tuple[str, ...] | None = None
    request_id: str = ""


@dataclass(frozen=True)
class Idempotency:
    """An Idempotency-Key with what it is scoped by, and the hash of the body it came with."""

    key: str
    method: str
    path: str
    body_hash: str


@dataclass
class Context:
    """Made after the fork: it holds connections. ``namespace`` and the secrets are read once, when first used."""

    settings: Settings
    database: Database
    _doorbell: Doorbell | None = field(default=None, repr=False)
    #: pools as last read, by name: a create that used one says which version, and is refused when it is not the newest
    pools: dict[str, Any] = field(default_factory=dict, repr=False)
    #: options of backends that keys fix, by key: what a key carries never changes
    key_options: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls, settings: Settings, *, pool_size: int = 5, application_name: str = "hostler", overflow: int | None = None
    ) -> Context:
        """A context for this process; nothing is connected before it is used."""
        database = Database(
            database_url(settings), pool_size=pool_size, application_name=application_name, overflow=overflow
        )
        return cls(settings, database)

    @cached_property
    def namespace(self) -> str:
        if self.settings.namespace:
            return self.settings.namespace
        with self.database.read() as connection:
            return read_namespace(connection)

    @cached_property
    def doorbell(self) -> Doorbell:
        if self._doorbell is None:
            # half of the processes of a stack ring nobody, and need not load Celery
            from app.doorbell.bell import Doorbell
            from app.doorbell.celery import make_celery

            self._doorbell = Doorbell(make_celery(self.settings, broker_url(self.settings), self.namespace))
        return self._doorbell

    @cached_property
    def engine_key(self) -> str:
        return engine_key(self.settings)

    @cached_property
    def depths(self) -> QueueDepths:
        return QueueDepths()

    @property
    def signals(self) -> Signals:
        return signals_of(self.database)

    def notify(self, *topics: str, at_once: bool = False) -> None:
        """Wake who waits for ``topics``; call after the commit. ``at_once`` where somebody waits for this very one."""
        notify(self.database, topics, at_once=at_once)

    @cached_property
    def _fernet(self) -> Fernet:
        key = secret_key(self.settings)
        try:
            return Fernet(key.encode())
        except ValueError:
            # HOSTLER_SECRET_KEY may be any long word; a made key has Fernet's own form
            return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.encode()).digest()))

    def seal(self, values: Mapping[str, str]) -> bytes:
        """User values, encrypted for the database."""
        return self._fernet.encrypt(json.dumps(dict(values)).encode())

    def unseal(self, sealed: bytes | None) -> dict[str, str]:
        """What ``seal`` made; empty for None. Raises ``cryptography.fernet.InvalidToken`` under another key."""
        return json.loads(self._fernet.decrypt(bytes(sealed))) if sealed else {}

    def close(self) -> None:
        self.signals.close()
        if self._doorbell is not None:
            self._doorbell.close()
        self.database.close()
