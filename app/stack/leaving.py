"""``hostler down`` on a worker host: its replicas are stopped through the database, for the API is elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from app.errors import Collided, HostlerError, Unavailable
from app.settings import Settings
from app.stack.record import Record
from app.stack.roles import GROUP
from app.stack.supervisor import Supervisor, SupervisorGone
from app.usecases import presence
from app.usecases.context import Actor, Context
from app.usecases.stops import request_stop

#: On top of grace and drain: the way through queue and worker.
_MORE_S = 10.0
_LOOK_S = 0.2

_HERE = text(
    "SELECT id, owner, model_name, state FROM replicas WHERE node = :node AND released_at IS NULL"
    " AND EXISTS (SELECT 1 FROM attempts a WHERE a.replica_id = replicas.id AND a.released_at IS NULL) ORDER BY id"
)

Say = Callable[[str], None]


def stop_replicas_here(settings: Settings, _record: Record, say: Say, grace_s: int, hurry: threading.Event) -> None:
    """What is launched on this host is asked to end and waited for. What cannot be done is done by signals later."""
    ctx = Context.open(settings, application_name="hostler-down")
    try:
        # from here on nothing is launched any more here
        Supervisor(settings).stop(f"{GROUP}:worker")
        presence.record_left(ctx)
        asked: set[str] = set()
        # as long again for the requests in flight
        deadline = time.monotonic() + 2 * grace_s + _MORE_S
        while (left := _replicas(ctx)) and not hurry.is_set() and time.monotonic() < deadline:
            # again and again: a worker that ends finishes what it was launching
            for row in left:
                if row.id not in asked:
                    asked.add(row.id)
                    say(f"stopping replica {row.id} of this host: {row.model_name or '-'}, {row.state}")
                    _stop(ctx, row, grace_s, say)
            hurry.wait(_LOOK_S)
        if left:
            say(f"{len(left)} replicas are not gone yet and are killed: {', '.join(row.id for row in left)}")
    except (Unavailable, Collided, SupervisorGone) as error:
        say(f"{error}; engines are ended by signals")
    finally:
        ctx.close()


def _replicas(ctx: Context) -> list[Any]:
    with ctx.database.read() as connection:
        return list(connection.execute(_HERE, {"node": ctx.settings.node_name}))


def _stop(ctx: Context, row: Any, grace_s: int, say: Say) -> None:
    try:
        request_stop(
            ctx,
            Actor(row.owner, "hostler", "admin"),
            row.id,
            grace_s=grace_s,
            drain_s=grace_s,
            cause="its host leaves the stack",
        )
    except (Unavailable, Collided):
        raise
    except HostlerError as error:
        say(f"  {row.id} was not stopped: {error}")
