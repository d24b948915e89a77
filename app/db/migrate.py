"""Bring a database to this version's schema, or say how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool

import migrations


@dataclass(frozen=True)
class Standing:
    """How far a database is. Both sides of an upgrade work on either schema (docs/decisions/0011)."""

    current: str | None
    newest: str
    #: a later version than this one migrated it
    ahead: bool = False

    @property
    def behind(self) -> bool:
        """Whether ``upgrade`` has something to do."""
        return self.current != self.newest and not self.ahead

    def __str__(self) -> str:
        if self.ahead:
            return f"the database is at {self.current}, which a later version than this one made"
        if self.behind:
            return f"the database is at {self.current or 'nothing yet'}, this version brings it to {self.newest}"
        return f"the database is at {self.current}"


def upgrade(database_url: str) -> None:
    """Apply every migration that is missing. Safe to run twice and from two processes at once.

    A database that a later version migrated is left as it is: this version works on it, and may be put back beside it.
    """
    if not standing(database_url).ahead:
        command.upgrade(_config(database_url), "head")


def standing(database_url: str) -> Standing:
    """What the database's schema is to this version. Raises what SQLAlchemy raises when there is no database."""
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    script = ScriptDirectory.from_config(_config(database_url))
    known = {revision.revision for revision in script.walk_revisions()}
    newest = script.get_current_head()
    assert newest is not None
    return Standing(current, newest, ahead=current is not None and current not in known)


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    # ConfigParser reads % as its own; a password may hold one
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
