"""Marks tell whether a host has the stack's keys, and nobody the keys by their marks."""

from __future__ import annotations

import json

from sqlalchemy import text

from app.db.engine import Database
from app.usecases import key_marks

KEYS = {"engine-key": "k" * 32, "secret-key": "s" * 44}


def test_a_host_with_another_key_is_told_which(database_url: str) -> None:
    database = Database(database_url, pool_size=1)
    try:
        assert key_marks.differing(database, KEYS) == [], "nobody said yet what is right"
        key_marks.record(database, KEYS)
        assert key_marks.differing(database, KEYS) == []
        assert key_marks.differing(database, {**KEYS, "engine-key": "k" * 31 + "l"}) == ["engine-key"]
        assert key_marks.differing(database, dict.fromkeys(KEYS, "")) == sorted(KEYS)
        key_marks.record(database, {"engine-key": "new"})
        assert key_marks.differing(database, KEYS) == ["engine-key"], "the other one is as it was"
        with database.read() as connection:
            marks = connection.execute(text("SELECT key_marks FROM stack")).scalar_one()
        assert set(marks) == set(KEYS)
        assert not [key for key in KEYS.values() if key in json.dumps(marks)]
        assert marks["engine-key"] != marks["secret-key"]
    finally:
        database.close()
