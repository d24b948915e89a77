"""What is left on this host of attempts that ended: what still runs is killed, folders without a record are removed."""

from __future__ import annotations

import logging

from app.usecases import orphans
from workers.backends.base import Backend, BackendError, Handle
from workers.bootstrap import Runtime

log = logging.getLogger(__name__)


def clear_orphans(runtime: Runtime) -> int:
    """One pass over every backend that can list what it finds; returns how many were ended or removed."""
    prefix = f"hostler-{runtime.ctx.namespace}-"
    return sum(_clear(runtime, backend, prefix) for backend in runtime.backends().values())


def _clear(runtime: Runtime, backend: Backend, prefix: str) -> int:
    names = backend.list_marked(prefix)
    if not names:
        return 0
    open_names, known = orphans.open_and_known(runtime.ctx, names)
    cleared = 0
    for name in names:
        if name in open_names:
            continue
        try:
            cleared += _clear_one(runtime, backend, name, known=name in known)
        except BackendError as error:
            log.warning("orphan %s: %s; it is tried again", name, error)
    return cleared


def _clear_one(runtime: Runtime, backend: Backend, name: str, *, known: bool) -> bool:
    handle = backend.adopt(name) or Handle(backend.name, name)
    seen = backend.inspect([handle])[0]
    if not seen.liveness.gone and not known:
        # a database that was put back from a copy knows less than the host: what it forgot may well be in use
        log.warning("%s runs and has no record here; it is left alone", name)
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
