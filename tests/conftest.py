"""Fixtures for all tests: real parts, started once, and a fresh migrated database for whoever asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest

from app.settings import Settings
from tests.support.embedded import embedded_parts, fresh_database, with_database

_TEMPLATE = "migrated"
#: A folder in memory, for what is gone after the run; see .ci/run.
_MEMORY = os.environ.get("HOSTLER_TEST_MEMORY") or None


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Embedded Postgres and Redis for the whole run; its database ``hostler`` is empty.

    In memory where CI offers a folder of such: to copy and drop a database for each test is most of what some tests do.
    """
    with TemporaryDirectory(prefix="parts-", dir=_MEMORY or tmp_path_factory.mktemp("parts")) as folder:
        if _MEMORY:
            # Postgres, which is another user's when root runs the tests, must come through
            Path(folder).chmod(0o711)
        with embedded_parts(Path(folder)) as settings:
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
