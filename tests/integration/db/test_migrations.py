"""Migrations: the schema they leave is the models', on an empty database and on one that has lived."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, create_engine, pool, text
from sqlalchemy.dialects.postgresql.base import ischema_names

import migrations
from app.db.engine import Database
from app.db.migrate import standing, upgrade
from app.db.models import metadata
from app.db.models.events import Xid8
from app.errors import Collided, Unavailable
from app.settings import Settings
from app.usecases.context import Context
from app.usecases.health import Health
from tests.support.embedded import fresh_database
from tests.support.keys import INSERT_ADMIN


def test_the_migrated_schema_is_the_models(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ischema_names, "xid8", Xid8)
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_the_database_and_this_version_agree(database_url: str) -> None:
    found = standing(database_url)
    assert (found.current, found.behind, found.ahead) == (found.newest, False, False)


def test_files_of_migrations_are_called_by_their_revision() -> None:
    """How far a database is, is told by them, without loading what migrates."""
    folder = Path(migrations.__file__).parent
    revisions = [found.revision for found in ScriptDirectory(str(folder)).walk_revisions()]
    assert revisions == sorted((path.name[:4] for path in (folder / "versions").glob("0*.py")), reverse=True)


def test_a_database_that_a_later_version_migrated_is_left_alone(database_url: str) -> None:
    """As when the version before is put back, or one of its processes is restarted while the upgrade rolls."""
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    upgrade(database_url)
    found = standing(database_url)
    assert (found.current, found.behind, found.ahead) == ("9999", False, True)
    Health(context := Context.open(Settings.load({"HOSTLER_DATABASE_URL": database_url}))).check_ready()
    context.close()
    engine.dispose()


def test_a_database_that_was_not_migrated_says_what_to_run(database_url: str) -> None:
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    found = standing(database_url)
    assert (found.current, found.behind, found.ahead) == (None, True, False)
    context = Context.open(Settings.load({"HOSTLER_DATABASE_URL": database_url}))
    with pytest.raises(Unavailable, match="hostler up") as refused:
        Health(context).check_ready()
    assert refused.value.retry_after_s
    context.close()
    engine.dispose()


def test_checks_and_partial_indexes_are_the_models(database_url: str) -> None:
    """What autogenerate does not compare: names of checks, and what partial indexes are limited to."""
    engine = create_engine(database_url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        query = "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        checks = {name for (name,) in connection.execute(text(query))}
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        found = {name: " WHERE " in definition for name, definition in connection.execute(text(query))}
    engine.dispose()
    wanted_checks = {
        str(constraint.name)
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert checks == wanted_checks
    for table in metadata.tables.values():
        for index in table.indexes:
            partial = index.dialect_options["postgresql"]["where"] is not None
            assert found[str(index.name)] == partial, index.name


def test_upgrading_what_is_current_changes_nothing_and_keeps_everything(parts: Settings, migrated: str) -> None:
    with fresh_database(parts, migrated) as url:
        engine = create_engine(url, poolclass=pool.NullPool)
        with engine.begin() as connection:
            connection.execute(text(INSERT_ADMIN))
            before = connection.execute(text("SELECT id FROM stack")).scalar()
        upgrade(url)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT name FROM keys")).scalar() == "k"
            assert connection.execute(text("SELECT id FROM stack")).scalar() == before
        engine.dispose()


def test_a_database_with_somebody_elses_tables_is_upgraded_beside_them(parts: Settings) -> None:
    with fresh_database(parts) as url:
        engine = create_engine(url, poolclass=pool.NullPool)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE invoices (id int PRIMARY KEY)"))
            connection.execute(text("INSERT INTO invoices SELECT generate_series(1, 1000)"))
        upgrade(url)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM invoices")).scalar() == 1000
            assert connection.execute(text("SELECT count(*) FROM pools")).scalar() == 2
        engine.dispose()


def test_two_that_migrate_at_once_do_it_once(parts: Settings) -> None:
    with fresh_database(parts) as url:

        def run(_: int) -> subprocess.CompletedProcess[str]:
            program = "import sys; from app.db.migrate import upgrade; upgrade(sys.argv[1])"
            return subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)

        with ThreadPoolExecutor(3) as threads:
            results = list(threads.map(run, range(3)))
        assert [result.returncode for result in results] == [0, 0, 0], [result.stderr[-500:] for result in results]
        assert standing(url).current == standing(url).newest


def test_what_an_older_schema_lacks_is_told_with_what_to_run(database_url: str) -> None:
    database = Database(database_url)
    for wrong in ("SELECT * FROM of_the_next_version", "SELECT of_the_next_version FROM pools"):
        with pytest.raises(Unavailable, match=r"of_the_next_version.*hostler up"), database.read() as connection:
            connection.execute(text(wrong))
    database.close()


def test_a_migration_under_a_running_process_costs_it_one_more_try(database_url: str) -> None:
    """What a connection prepared before its table got a column fails there for ever."""
    database = Database(database_url, pool_size=1)
    other = create_engine(database_url, poolclass=pool.NullPool)

    def first(connection: Connection) -> int:
        return len(connection.execute(text("SELECT * FROM pools ORDER BY name LIMIT 1")).one())

    before = [database.change(first) for _ in range(8)]
    with other.begin() as connection:
        connection.execute(text("ALTER TABLE pools ADD COLUMN of_the_next_version TEXT"))
    assert database.change(first) == before[-1] + 1
    # a read is not repeated by itself, and goes well the next time
    for _ in range(8):
        with database.read() as connection:
            first(connection)
    with other.begin() as connection:
        connection.execute(text("ALTER TABLE pools DROP COLUMN of_the_next_version"))
    with pytest.raises(Collided), database.read() as connection:
        first(connection)
    with database.read() as connection:
        assert first(connection) == before[-1]
    database.close()
    other.dispose()
