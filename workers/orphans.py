"""What is left on this host of attempts that ended or that no record knows.

What still runs of an ended attempt is killed, folders without a record are removed. What runs without any record is
dealt with as ``HOSTLER_ORPHANS`` says: a database that was put back from a copy knows less than the host, so that it
may well be in use, and the default is to leave it alone and to say so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from app.usecases import orphans, place_states, places
from app.usecases.orphans import NotAdoptable
from workers.backends.base import Backend, BackendError, BackendUnavailable, Handle, Liveness
from workers.bootstrap import Runtime
from workers.engine_targets import handle_of, to_json

log = logging.getLogger(__name__)

#: What an orphan that is killed by policy gets to end by itself.
GRACE_S = 20.0


def clear_orphans(runtime: Runtime) -> int:
    """One pass over every backend that can list what it finds; returns how many were ended, adopted or removed."""
    prefix = f"hostler-{runtime.ctx.namespace}-"
    cleared = 0
    unknown: dict[str, Backend] = {}
    begun, troubles = place_states.now(runtime.ctx), dict[Backend, str]()
    for backend in runtime.places():
        try:
            cleared += len(backend.tidy())
            names = backend.list_marked(prefix)
        except BackendError as error:
            log.warning("orphans of backend %s: %s; they are looked for again", backend.name, error)
            troubles[backend] = str(error) or "it did not answer"
            continue
        troubles[backend] = ""
        if not names:
            continue
        # the host first and then its record, which is written before anything is launched
        open_names, known = orphans.open_and_known(runtime.ctx, names)
        for name in names:
            if name in open_names:
                continue
            try:
                cleared += _clear(runtime, backend, name, unknown, known=name in known)
            except BackendError as error:
                log.warning("orphan %s: %s; it is tried again", name, error)
    place_states.record(runtime.ctx, begun, _by_pool(runtime, troubles))
    return cleared + _deal_with_unknown(runtime, unknown)


def _by_pool(runtime: Runtime, troubles: Mapping[Backend, str]) -> list[tuple[Any, str]]:
    """Rows of pools whose place was asked, and what was wrong there; one that came meanwhile is asked next time."""
    found: list[tuple[Any, str]] = []
    for row in places.pools(runtime.ctx):
        try:
            backend = runtime.backend(row.backend, row.options)
        except BackendError:
            continue
        if backend in troubles:
            found.append((row, troubles[backend]))
    return found


def end_left_behind(runtime: Runtime) -> int:
    """What was given up while its place could not be asked: ended where that answers again. Returns how many are gone.

    Its name is sealed there, too: who had begun to launch it and froze then starts nothing any more.
    """
    away: set[Backend] = set()
    gone = 0
    for one in orphans.left_behind(runtime.ctx):
        try:
            backend = runtime.backend(one.backend, one.options)
            if backend not in away:
                gone += _end_left(runtime, backend, one)
        except BackendUnavailable:
            # nothing new: that is why it was given up
            away.add(backend)
        except BackendError as error:
            log.warning("attempt %s, which was given up: %s; it is tried again", one.name, error)
    return gone


def _end_left(runtime: Runtime, backend: Backend, one: Any) -> bool:
    handle = handle_of(one.backend, one.name, one.backend_ref)
    if one.backend_ref is None:
        handle = backend.adopt(one.name) or handle
    if backend.inspect([handle])[0].liveness in (Liveness.RUNNING, Liveness.QUEUED):
        orphans.record_orphan(runtime.ctx, one.name, "had been given up, is there after all, and is ended")
    if not backend.stop(handle, grace_s=0, force=True).liveness.gone:
        return False
    orphans.record_caught_up(runtime.ctx, one.id)
    return True


def _clear(runtime: Runtime, backend: Backend, name: str, unknown: dict[str, Backend], *, known: bool) -> bool:
    handle = backend.adopt(name) or Handle(backend.name, name)
    seen = backend.inspect([handle])[0]
    if not seen.liveness.gone and not known:
        unknown[name] = backend
        return False
    if not seen.liveness.gone:
        backend.stop(handle, grace_s=0, force=True)
        orphans.record_orphan(runtime.ctx, name, "ran though its attempt had ended, and was killed")
        return True
    if known:
        # its log stays as long as its record
        return False
    backend.close(handle)
    return True


def _deal_with_unknown(runtime: Runtime, unknown: dict[str, Backend]) -> int:
    policy, dealt_with, left = runtime.settings.orphans, 0, []
    for name, backend in unknown.items():
        done = _adopted(runtime, backend, name) if policy == "adopt" else policy == "kill"
        if policy == "kill":
            _ask_to_end(backend, name)
        dealt_with += done
        # what is asked to end is told until it is gone
        if not done or policy == "kill":
            left.append(name)
    for name in orphans.report(runtime.ctx, left):
        what = "it is asked to end and then killed" if policy == "kill" else "it is left alone; `hostler gc` ends it"
        orphans.record_orphan(runtime.ctx, name, f"runs and has no record here; {what}")
    return dealt_with


def _adopted(runtime: Runtime, backend: Backend, name: str) -> bool:
    record, handle = backend.recall(name), backend.adopt(name)
    if record is None or handle is None:
        return False
    try:
        replica_id = orphans.adopt(runtime.ctx, name, record, to_json(handle))
    except NotAdoptable as why:
        log.warning("orphan %s cannot be adopted: %s", name, why)
        return False
    orphans.record_orphan(runtime.ctx, name, f"ran without a record and was adopted as replica {replica_id}")
    return True


def _ask_to_end(backend: Backend, name: str) -> None:
    try:
        backend.stop(backend.adopt(name) or Handle(backend.name, name), grace_s=GRACE_S)
    except BackendError as error:
        log.warning("orphan %s: %s; it is tried again", name, error)
