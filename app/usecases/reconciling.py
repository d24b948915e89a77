"""From what a service should be to what it is: one transaction looks, plans and acts; any number may try at once.

A service's row is locked by whoever acts on it, so that each step is taken once. Hints say that a replica of it
changed; they are taken away before its replicas are read, so that what comes meanwhile leaves a hint again. Whatever is
not hinted at is looked at by the clock: no service is left alone for longer than ``LOOK_S``.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection

from app.db.engine import Database
from app.db.repos import service_hints
from app.db.repos import services as repo
from app.domain.services import Create, Stop
from app.errors import Collided, Unavailable
from app.usecases import defects
from app.usecases.context import Actor, Context
from app.usecases.gateway_load import GatewayLoad
from app.usecases.plans import Plan as Resolved
from app.usecases.service_acts import act
from app.usecases.service_effects import Effects
from app.usecases.service_sight import see
from app.usecases.service_verdicts import LOOK_S, has_work, look_in

__all__ = ["BATCH", "LOOK_S", "load_of", "reconcile", "sweep", "turn"]

log = logging.getLogger(__name__)

#: A look further ahead than this was set by a clock that was set back since.
AHEAD_S = LOOK_S + 5.0
#: Services that one transaction looks at.
BATCH = 200
#: How long one sweep may take: other repairs, and stops, wait behind it.
BUDGET_S = 1.0
#: Plans that follow from each other in one transaction: a good revision, then what that allows.
PASSES = 8


def turn(ctx: Context, limit: int = BATCH, until: float = float("inf")) -> int:
    """Look at what is due and act where something is to be done; how many were due. Raises Collided, Unavailable.

    What somebody else is at is left to them, and what is not begun by ``until`` (monotonic) to the next turn. Those
    where nothing is to be done cost a share of a few statements.
    """
    with ctx.database.read() as connection:
        if not repo.is_there(connection):
            return 0
        due = service_hints.due(connection, limit, AHEAD_S)
    if not due:
        return 0
    _turn(ctx, due, until)
    return len(due)


def _turn(ctx: Context, due: Sequence[str], until: float) -> None:
    found = _look_at(ctx, due)
    if found is None:
        # whose defect it is shows when each is looked at alone
        for service_id in due if len(due) > 1 else ():
            _turn(ctx, [service_id], until)
        return
    acting, effects = found
    effects.tell(ctx)
    # how busy each is decides who is stopped, and nothing else
    loads = load_of(ctx) if any(acting.values()) else {}
    for service_id in acting:
        # one at least, however slow the look was
        _carry_out(ctx, service_id, loads)
        if time.monotonic() >= until:
            break


def sweep(ctx: Context) -> int:
    """``turn`` until little is left that is due, or for ``BUDGET_S``: the rest is the next one's. How many were looked
    at. Raises Collided, Unavailable."""
    looked = 0
    until = time.monotonic() + BUDGET_S
    while True:
        found = turn(ctx, until=until)
        looked += found
        if found < BATCH or time.monotonic() >= until:
            return looked


def reconcile(
    ctx: Context,
    connection: Connection,
    service_id: str,
    *,
    who: Actor | None = None,
    loads: Mapping[str, int] | None = None,
    known: Mapping[int, Resolved] = MappingProxyType({}),
) -> Effects:
    """Bring one service on in this transaction, with its row locked. ``who`` asked for it, None: nobody. ``known`` is
    what its revisions were just resolved to.

    Raises Collided when one of its replicas is being changed beside: begin anew.
    """
    effects = Effects()
    for _ in range(PASSES):
        # before the members are read: what changes after this leaves another hint
        service_hints.take_all(connection, service_id)
        [seen] = see(connection, [service_id], [repo.read(connection, service_id)], loads or {})
        if not act(ctx, connection, seen, who, effects, known):
            return effects
    # the next transaction goes on
    repo.look_again(connection, {service_id: 0.0})
    return effects


def load_of(ctx: Context) -> Mapping[str, int]:
    """Requests in flight by replica at this host's gateway; empty where there is none. Never inside a transaction."""
    with _making:
        found = _loads.get(ctx.database)
        if found is None:
            found = _loads[ctx.database] = (GatewayLoad(ctx.settings), threading.Lock())
    load, lock = found
    with lock:
        return load.read()


def _look_at(ctx: Context, due: Sequence[str]) -> tuple[dict[str, bool], Effects] | None:
    """``_look`` in a transaction; None when it broke over one of them, which is told if it was looked at alone."""
    try:
        return ctx.database.change(partial(_look, ctx, due))
    except (Collided, Unavailable):
        raise
    except Exception as error:  # noqa: BLE001 - a defect about one service must not end what looks after all of them
        if len(due) == 1:
            defects.record(ctx, due[0], error)
        return None


def _look(ctx: Context, due: Sequence[str], connection: Connection) -> tuple[dict[str, bool], Effects]:
    """Put off those of ``due`` about which nothing is to be done, and write what concerns no replica. Returns those
    about whose replicas something is to be done, unless somebody is at them, and whether that is a stop."""
    rows = repo.lock_free(connection, due)
    ids = [row.id for row in rows]
    hints = service_hints.read(connection, ids)
    effects, waits, acting = Effects(), dict[str, float | None](), dict[str, bool]()
    for one in see(connection, ids, rows, {}):
        if not has_work(one):
            waits[one.row.id] = look_in(one)
        elif bool(one.of(Create)) or bool(one.of(Stop)) or act(ctx, connection, one, None, effects):
            # several replicas are locked in one order only: that of one service
            acting[one.row.id] = bool(one.of(Stop))
    service_hints.take(connection, [hint for one in ids if one not in acting for hint in hints.get(one, ())])
    repo.look_again(connection, waits)
    service_hints.drop_ownerless(connection, sorted(set(due) - set(ids)))
    return acting, effects


def _carry_out(ctx: Context, service_id: str, loads: Mapping[str, int]) -> None:
    def act(connection: Connection) -> Effects:
        if not repo.lock_free(connection, [service_id]):
            # whoever is at it sees what we would
            return Effects()
        return reconcile(ctx, connection, service_id, loads=loads)

    try:
        ctx.database.change(act).tell(ctx)
    except (Collided, Unavailable) as error:
        # its hints are still there, and it must not hold up the others
        log.warning("service %s is looked at again: %s", service_id, error)
    except Exception as error:  # noqa: BLE001 - as above
        defects.record(ctx, service_id, error)


_loads: weakref.WeakKeyDictionary[Database, tuple[GatewayLoad, threading.Lock]] = weakref.WeakKeyDictionary()
_making = threading.Lock()
