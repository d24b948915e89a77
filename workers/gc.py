"""Leaks of one stack on this host and in its database: ``python -m workers.gc [--remove]``, for ``hostler gc``.

Prints a list of ``{kind, name, why, removed, error}`` as JSON. With ``--remove`` it reads such a list from stdin and
removes of it what is a leak still: what was shown to a person, and not what came since. Safe beside everything at work.
Exit code 3: the database cannot be asked, and so nothing is known to be a leak.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from app.usecases import leaks, orphans
from app.usecases.leaks import Leak
from workers import stored
from workers.backends.base import Backend, BackendError, Handle
from workers.bootstrap import Runtime
from workers.errands import run_errand

log = logging.getLogger(__name__)

#: What is killed needs a moment to be gone.
KILL_S = 10.0


def find(runtime: Runtime) -> list[Leak]:
    """Everything that should not be there. Changes nothing. Raises Unavailable."""
    found: list[Leak] = []
    for backend in runtime.places():
        with _asked(backend):
            found += [
                Leak("half_made", name, f"left by a killed process, {backend.name}")
                for name in backend.tidy(dry_run=True)
            ]
            found += [leak for leak, _handle in _attempts(runtime, backend)]
    found += _stores(runtime)
    return [*found, *leaks.ownerless_leases(runtime.ctx), *leaks.rows_past_their_time(runtime.ctx)]


def remove(runtime: Runtime, wanted: Sequence[tuple[str, str]]) -> list[Leak]:
    """Remove of ``wanted`` (kind, name) what is a leak still; returns what came of each. Raises Unavailable."""
    done: list[Leak] = []
    half_made = {name for kind, name in wanted if kind == "half_made"}
    for backend in runtime.places():
        with _asked(backend):
            # everything is looked at anew: what was a leak when a person was asked may be at work by now
            for leak, handle in _attempts(runtime, backend):
                if (leak.kind, leak.name) in wanted:
                    done.append(_end(runtime, backend, leak, handle))
            if half_made & set(backend.tidy(dry_run=True)):
                done += [Leak("half_made", name, "", True) for name in backend.tidy() if name in half_made]
    done += [stored.remove(runtime.settings, leak) for leak in _stores(runtime) if (leak.kind, leak.name) in wanted]
    kinds = {kind for kind, _ in wanted}
    rows = [*leaks.ownerless_leases(runtime.ctx), *leaks.rows_past_their_time(runtime.ctx)]
    if "lease" in kinds:
        leaks.free_leases(runtime.ctx)
    if "rows" in kinds:
        leaks.forget_rows(runtime.ctx)
    return done + [replace(row, removed=True) for row in rows if row.kind in kinds]


@contextmanager
def _asked(backend: Backend) -> Iterator[None]:
    """A place that cannot be asked now hides nothing of the others."""
    try:
        yield
    except BackendError as error:
        log.warning("what is left of backend %s is not known: %s", backend.name, error)


def _attempts(runtime: Runtime, backend: Backend) -> list[tuple[Leak, Handle]]:
    # the host first and then its record, which is written before anything is launched
    names = backend.list_marked(f"hostler-{runtime.ctx.namespace}-")
    open_names, known = orphans.open_and_known(runtime.ctx, names)
    found = []
    for name in names:
        if name in open_names:
            continue
        handle = backend.adopt(name) or Handle(backend.name, name)
        seen = backend.inspect([handle])[0]
        why = "its attempt has ended" if name in known else "no record knows it"
        if not seen.liveness.gone:
            pid = f"pid {seen.pid}, " if seen.pid else ""
            found.append((Leak("engine", name, f"{pid}{seen.liveness}: {why}"), handle))
        elif name not in known:
            found.append((Leak("attempt_folder", name, why), handle))
    return found


def _stores(runtime: Runtime) -> list[Leak]:
    """What stores left on this host, once neither a service nor a replica is known by that name."""
    # the host first and then the records, which are written before anything is launched
    kept = stored.folders(runtime.settings)
    unknown = leaks.unknown_keepers(runtime.ctx, list(kept))
    return [
        Leak(stored.KIND, name, f"{size_bytes} bytes; no service or replica is known by this id")
        for name, size_bytes in kept.items()
        if name in unknown
    ]


def _end(runtime: Runtime, backend: Backend, leak: Leak, handle: Handle) -> Leak:
    deadline = time.monotonic() + KILL_S
    try:
        # the backend signals by pid, start time and boot, and whoever carries the mark
        while not backend.inspect([handle])[0].liveness.gone:
            if time.monotonic() > deadline:
                return replace(leak, removed=False, error=f"was killed and is not gone after {KILL_S:g} s")
            backend.stop(handle, grace_s=0, force=True)
            time.sleep(0.05)
        if leak.kind == "engine":
            orphans.record_orphan(runtime.ctx, leak.name, "was ended by `hostler gc`")
        # what has a record keeps its log as long as that
        if leak.name not in orphans.open_and_known(runtime.ctx, [leak.name])[1]:
            backend.close(handle)
    except (BackendError, OSError) as error:
        return replace(leak, removed=False, error=str(error))
    return replace(leak, removed=True)


def main(argv: Sequence[str]) -> int:
    """See the module."""

    def tell(runtime: Runtime) -> None:
        if "--remove" in argv:
            wanted: list[dict[str, Any]] = json.load(sys.stdin)
            found = remove(runtime, [(one["kind"], one["name"]) for one in wanted])
        else:
            found = find(runtime)
        json.dump([one.body() for one in found], sys.stdout)

    return run_errand("gc", tell)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
