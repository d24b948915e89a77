"""Bring a database to this version's schema, or say how far it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine, pool, text

import migrations

if TYPE_CHECKING:
    from alembic.config import Config

#: Files of migrations are called by their revision, one after the other.
_REVISION = "[0-9][0-9][0-9][0-9]"
_FOLDER = Path(migrations.__file__).parent


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
        # only a start migrates; others ask how far the database is
        from alembic import command

        command.upgrade(_config(database_url), "head")


def standing(database_url: str) -> Standing:
    """What the database's schema is to this version. Raises what SQLAlchemy raises when there is no database."""
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        known = connection.execute(text("SELECT to_regclass('alembic_version') IS NOT NULL")).scalar_one()
        query = text("SELECT version_num FROM alembic_version")
        current: str | None = connection.execute(query).scalar_one_or_none() if known else None
    engine.dispose()
    revisions = sorted(path.name[:4] for path in (_FOLDER / "versions").glob(f"{_REVISION}_*.py"))
    return Standing(current, revisions[-1], ahead=current is not None and current not in revisions)


def _config(database_url: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    # ConfigParser reads % as its own; a password may hold one
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
