"""Whether a host has what all hosts of a stack share, keys above all: told by marks in the database, not by the keys.

With another engine key its engines would refuse every request that comes through the gateway; with another secret key
it could not read the environment that users stored.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping

from sqlalchemy import text

from app.db.engine import Database

#: Costs 20 ms and 4 MB: a key of a user's own making is not to be guessed from its mark.
_COST = {"n": 4096, "r": 8, "p": 1, "dklen": 16}


def record(database: Database, keys: Mapping[str, str]) -> None:
    """These are the stack's keys, by name; what was recorded of others is replaced."""
    with database.begin() as connection:
        salt = str(connection.execute(text("SELECT id FROM stack")).scalar_one())
        marks = {name: _mark(key, f"{salt}/{name}") for name, key in keys.items()}
        connection.execute(
            text("UPDATE stack SET key_marks = key_marks || CAST(:marks AS jsonb)"), {"marks": json.dumps(marks)}
        )


def differing(database: Database, keys: Mapping[str, str]) -> list[str]:
    """Names of those ``keys`` that are not the stack's. A stack that recorded none yet refuses none."""
    with database.read() as connection:
        row = connection.execute(text("SELECT id, key_marks FROM stack")).one()
    return [
        name
        for name, key in sorted(keys.items())
        if name in row.key_marks and not hmac.compare_digest(row.key_marks[name], _mark(key, f"{row.id}/{name}"))
    ]


def _mark(key: str, salt: str) -> str:
    return hashlib.scrypt(key.encode(), salt=salt.encode(), **_COST).hex()
