"""Tables that the version before does not have: what needs them does without until the database is migrated.

Either version works on either schema (docs/decisions/0011), so a statement that many processes depend on has two forms.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Pool, TextClause, text

#: A database that was not migrated is asked again after this; one that was stays so.
ASK_AGAIN_S = 1.0
_IS_THERE = text("SELECT to_regclass('tunnels') IS NOT NULL")

_found: WeakKeyDictionary[Pool, tuple[bool, float]] = WeakKeyDictionary()


def knows_services(connection: Connection) -> bool:
    """Whether the tables of services and places are there, all of which came with this version."""
    pool = connection.engine.pool
    is_there, asked_at = _found.get(pool, (False, float("-inf")))
    if is_there or time.monotonic() - asked_at < ASK_AGAIN_S:
        return is_there
    is_there = bool(connection.execute(_IS_THERE).scalar_one())
    _found[pool] = (is_there, time.monotonic())
    return is_there


class AdaptedToServices:
    """A statement in both forms; ``written`` is told whether services are known."""

    def __init__(self, written: Callable[[bool], str]) -> None:
        self._forms = {known: text(written(known)) for known in (False, True)}

    def of(self, connection: Connection) -> TextClause:
        """The form for this database."""
        return self._forms[knows_services(connection)]
