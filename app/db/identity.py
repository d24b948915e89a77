"""Who this stack is: its namespace in the broker, in node names and in the marks of what it launches."""

from __future__ import annotations

from sqlalchemy import Connection, create_engine, pool, text

from app.settings import Settings
from app.stack.urls import database_url


def namespace(settings: Settings) -> str:
    """``HOSTLER_NAMESPACE``, else the id that the first migration gave the database."""
    if settings.namespace:
        return settings.namespace
    engine = create_engine(database_url(settings), poolclass=pool.NullPool)
    with engine.connect() as connection:
        found = read_namespace(connection)
    engine.dispose()
    return found


def read_namespace(connection: Connection) -> str:
    """The database's own id: 8 hex characters."""
    return str(connection.execute(text("SELECT id FROM stack")).scalar_one())
