"""Fixtures for all tests: real parts, started once, and a fresh migrated database for whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from app.settings import Settings
from tests.support.embedded import embedded_parts, fresh_database, with_database

_TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Embedded Postgres and Redis for the whole run; its database ``hostler`` is empty."""
    with embedded_parts(tmp_path_factory.mktemp("parts")) as settings:
        yield settings


@pytest.fixture(scope="session")
def migrated(parts: Settings) -> Iterator[str]:
    """Name of a database with all migrations, to be copied and never used itself."""
    from app.db.migrate import upgrade

    with fresh_database(parts, "hostler", name=_TEMPLATE):
        upgrade(with_database(parts.database_url, _TEMPLATE))
        yield _TEMPLATE


@pytest.fixture
def database_url(parts: Settings, migrated: str) -> Iterator[str]:
    """URL of a fresh migrated database, dropped after the test."""
    with fresh_database(parts, migrated) as url:
        yield url


@pytest.fixture
def settings(parts: Settings, database_url: str) -> Settings:
    """Settings with a fresh migrated database and a namespace of its own on the shared broker."""
    return replace(parts, database_url=database_url, namespace=f"t{uuid4().hex[:10]}")
