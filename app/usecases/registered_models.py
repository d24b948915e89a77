"""Models that registered servers serve beside, or instead of, replicas of ours: as the gateway routes them."""

from __future__ import annotations

import math
import threading
import time
import weakref

from sqlalchemy import Connection

from app.db.engine import Database
from app.db.repos import registrations as repo
from app.db.repos import routes
from app.usecases import models
from app.usecases.context import Context
from app.usecases.registrations import route_facts

#: Ten thousand registrations are not read for every request.
KEPT_S = 1.0
#: Nor as often as somebody asks for what is not there.
FRESH_S = 0.05


def registered_models(context: Context, connection: Connection, *, kept_s: float = KEPT_S) -> frozenset[str]:
    """Names of models whose route has a registered server that answers; read up to ``kept_s`` ago."""
    found = _last(context.database, kept_s)
    if found is None:
        with _reading:
            # somebody else may have read it meanwhile
            found = _last(context.database, kept_s)
            if found is None:
                found = _read(context, connection)
                _kept[context.database] = (time.monotonic(), found)
    return found


def _last(database: Database, kept_s: float) -> frozenset[str] | None:
    at, found = _kept.get(database, (-math.inf, frozenset[str]()))
    return found if time.monotonic() - at < kept_s else None


def _read(context: Context, connection: Connection) -> frozenset[str]:
    rows = repo.answering(connection)
    if not rows:
        return frozenset()
    ours = {name: name for name in routes.models_in_use(connection)}
    for model in models.read_all(context, connection):
        ours |= dict.fromkeys((model["name"], *model["aliases"]), model["name"])
    return frozenset(found.model for found in route_facts(rows, ours, context.settings.node_name))


#: per database: (when it was read, names)
_kept: weakref.WeakKeyDictionary[Database, tuple[float, frozenset[str]]] = weakref.WeakKeyDictionary()
_reading = threading.Lock()
