"""A context and an admin, for use cases against a database of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases.context import Actor, Context
from app.usecases.keys import ensure_admin_key
from tests.support.services import Hands


@pytest.fixture
def ctx(settings: Settings) -> Iterator[Context]:
    made = Context.open(settings, pool_size=6)
    ensure_admin_key(settings, "k" * 32)
    yield made
    made.close()


@pytest.fixture
def actor(ctx: Context) -> Actor:
    with ctx.database.read() as connection:
        return Actor(connection.execute(text("SELECT id FROM keys")).scalar_one(), "admin", "admin")


@pytest.fixture
def hands(ctx: Context) -> Hands:
    return Hands(ctx)
