"""Alembic's entry: online only, one migrator at a time by an advisory lock."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, pool, text

from app.db.models import metadata
from app.settings import Settings
from app.stack.urls import database_url

#: any constant: every migrator of one database takes the same lock
LOCK = 0x686F7374


def run() -> None:
    """Migrate the database of ``sqlalchemy.url``, else of the settings."""
    url = context.config.get_main_option("sqlalchemy.url") or database_url(Settings.load())
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": LOCK})
        connection.commit()
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.commit()
    engine.dispose()


run()
