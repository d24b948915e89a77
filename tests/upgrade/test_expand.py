"""The rule that makes two versions fit one schema, read off the catalog: the newest may only add to what was there.

What cannot be seen here (a changed meaning) is what ``test_side_by_side`` is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, pool, text

from app.db.migrate import upgrade
from app.settings import Settings
from tests.support.embedded import fresh_database
from tests.upgrade.conftest import run_in

#: name of a thing -> how it is defined
Things = dict[str, str]
_COLUMNS = """
SELECT table_name || '.' || column_name, concat_ws(' ', udt_name, is_nullable, column_default, is_identity)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""
#: Rules that only became wider, and why the version before fits them.
_WIDER = {
    # it lists kinds it does not know and claims only those it does
    "tasks.ck_tasks_kind_known": "its kinds, and those of services",
    # it always names a replica
    "tasks.ck_tasks_of_replica_or_service": "only for tasks without a replica",
}
#: Columns that may be empty now: it shows the rows where they are as they are.
_LOOSER = {"tasks.replica_id": "text YES NO"}
#: what forbids something: a new one may forbid what the version before writes
_RULES = """
SELECT conrelid::regclass || '.' || conname, pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conrelid::regclass::text <> 'alembic_version'
UNION ALL SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indisunique AND indrelid::regclass::text IN
    (SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version')
"""
_FUNCTIONS = """
SELECT proname::text, pg_get_function_identity_arguments(oid) || ' -> ' || pg_get_function_result(oid) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
"""


@pytest.fixture(scope="module")
def schemas(parts: Settings, baseline: Path) -> Iterator[tuple[str, str]]:
    """Databases of the version before and of this one, the second an upgraded one of the first."""
    with fresh_database(parts) as before, fresh_database(parts) as after:
        migrate = "import sys; from app.db.migrate import upgrade; upgrade(sys.argv[1]); upgrade(sys.argv[2])"
        run_in(baseline, migrate, before, after)
        upgrade(after)
        yield before, after


def test_no_column_is_dropped_renamed_or_of_another_type(schemas: tuple[str, str]) -> None:
    before, after = (_things(url, _COLUMNS) for url in schemas)
    assert len(before) > 150
    assert {name: after.get(name) for name in before} == before | _LOOSER


def test_new_columns_can_be_left_out(schemas: tuple[str, str]) -> None:
    """The version before does not name them in its inserts."""
    before, after = (_things(url, _COLUMNS) for url in schemas)
    known = {name.partition(".")[0] for name in before}
    added = {name: how for name, how in after.items() if name not in before and name.partition(".")[0] in known}
    demanding = [name for name, how in added.items() if how.split()[1:] == ["NO", "NO"]]
    assert demanding == []


def test_nothing_is_forbidden_that_was_allowed(schemas: tuple[str, str]) -> None:
    before, after = (_things(url, _RULES) for url in schemas)
    assert len(before) > 50
    known = {name.partition(".")[0] for name in _things(schemas[0], _COLUMNS)}
    forbidding = {name: how for name, how in after.items() if before.get(name) != how and _table(name, how) in known}
    assert set(forbidding) == set(_WIDER), (
        "a rule that only became wider is written down here, with why the version before fits it"
    )


def test_functions_keep_their_form(schemas: tuple[str, str]) -> None:
    before, after = (_things(url, _FUNCTIONS) for url in schemas)
    assert {name: after.get(name) for name in before} == before


def test_migrations_of_the_version_before_are_as_they_were(baseline: Path) -> None:
    """They ran on databases that live: a change of them would reach only new ones."""
    here = Path(__file__).parents[2] / "migrations" / "versions"
    frozen = sorted((baseline / "migrations" / "versions").glob("0*"))
    assert frozen
    assert [path.name for path in frozen if (here / path.name).read_bytes() != path.read_bytes()] == []


def _table(name: str, how: str) -> str:
    if " ON " in how and how.startswith("CREATE"):
        return how.partition(" ON ")[2].split()[0].removeprefix("public.")
    return name.partition(".")[0]


def _things(url: str, query: str) -> Things:
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection:
        found = {str(name): str(how) for name, how in connection.execute(text(query))}
    engine.dispose()
    return found
