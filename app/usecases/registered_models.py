"""Models that registered servers serve beside, or instead of, replicas of ours: as the gateway routes them."""

from __future__ import annotations

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


def registered_models(context: Context, connection: Connection) -> frozenset[str]:
    """Names of models whose route has a registered server that answers; up to ``KEPT_S`` old."""
    kept = _kept.get(context.database)
    if kept is not None and kept[0] > time.monotonic():
        return kept[1]
    with _reading:
        kept = _kept.get(context.database)
        if kept is None or kept[0] <= time.monotonic():
            kept = (time.monotonic() + KEPT_S, _read(context, connection))
            _kept[context.database] = kept
    return kept[1]


def _read(context: Context, connection: Connection) -> frozenset[str]:
    rows = repo.answering(connection)
    if not rows:
        return frozenset()
    ours = {name: name for name in routes.models_in_use(connection)}
    for model in models.read_all(context, connection):
        ours |= dict.fromkeys((model["name"], *model["aliases"]), model["name"])
    return frozenset(found.model for found in route_facts(rows, ours, context.settings.node_name))


#: per database: (good until, names)
_kept: weakref.WeakKeyDictionary[Database, tuple[float, frozenset[str]]] = weakref.WeakKeyDictionary()
_reading = threading.Lock()
