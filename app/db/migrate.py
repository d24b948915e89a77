"""Bring a database to this version's schema, or say how far it is."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, pool

import migrations


def upgrade(database_url: str) -> None:
    """Apply every migration that is missing. Safe to run twice and from two processes at once."""
    command.upgrade(_config(database_url), "head")


def revisions(database_url: str) -> tuple[str | None, str | None]:
    """(revision of the database, newest revision of this version); None where there is none."""
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return current, ScriptDirectory.from_config(_config(database_url)).get_current_head()


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    # ConfigParser reads % as its own; a password may hold one
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    return config
