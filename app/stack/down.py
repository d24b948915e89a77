"""``hostler down``: replicas first, then the control plane; afterwards nothing of the state dir is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from app.domain.lifecycle import LAUNCHING, LIVE, State
from app.settings import Settings
from app.stack.api import Api, ApiSilent
from app.stack.as_workers import as_workers
from app.stack.control import end_control_plane
from app.stack.errors import PartFailed
from app.stack.layout import Layout, remove_run_dir
from app.stack.leaving import stop_replicas_here
from app.stack.lock import locked
from app.stack.processes import Found, control_plane, end, engines
from app.stack.record import Record, read_record, remove_record, supervisor_of
from app.stack.roles import ENGINE, GROUP, STACK, WORKER_HOST
from app.stack.secrets import ADMIN_KEY, read_secret
from app.stack.supervisor import Supervisor, SupervisorGone

#: What an engine gets to end by itself.
GRACE_S = 30
#: On top of the grace: the way through queue and worker.
_MORE_S = 10.0
_LOOK_S = 0.1
_CALLS = 8
#: A place that cannot be asked for a stop is waited for no longer than this, whatever the grace: it is asked all along.
_AWAY_S = 15.0
#: Of each cluster one question, of all at once.
_IDLE_S = 15
_IDLE_STAY = "idle jobs of a cluster, if there are any, end after their job_stay_s: {}"
#: The backend whose jobs wait for the next replica.
_SHARES_JOBS = "slurm"
#: Of these some have no process yet.
_ON_THE_WAY = (*LAUNCHING[1:], State.STOPPING)

Say = Callable[[str], None]


def down(
    settings: Settings,
    say: Say,
    *,
    keep_replicas: bool = False,
    grace_s: int = GRACE_S,
    hurry: threading.Event | None = None,
) -> bool:
    """Stop everything of the state dir; with ``keep_replicas`` engines go on serving, and the next `up` adopts them.

    False when there was nothing to stop. ``hurry`` (a second Ctrl-C) ends the waiting. Raises PartFailed when
    something cannot be ended, here, or elsewhere on a host that does not answer.
    """
    layout = Layout(settings.state_dir)
    if not layout.lock.exists():
        return False
    with locked(settings.state_dir, say):
        left = control_plane(layout) + ([] if keep_replicas else engines(layout))
        record = read_record(settings)
        if not left:
            remove_record(settings)
            return False
        hurry = hurry or threading.Event()
        far: list[str] = []
        if keep_replicas:
            count = len({one.attempt for one in engines(layout)})
            again = "worker" if record is not None and record.kind == WORKER_HOST else "up"
            say(f"keeping {count} engines here and all that runs elsewhere; `hostler {again}` adopts them")
        elif record is not None and supervisor_of(record) is not None:
            if record.kind == STACK:
                far = _stop_replicas(settings, record, say, grace_s, hurry)
            else:
                stop_replicas_here(settings, record, say, grace_s, hurry)
        say("stopping the control plane")
        end_control_plane(settings)
        if not keep_replicas:
            _end_engines(layout, say, 0 if hurry.is_set() else grace_s, hurry)
        _check_gone(layout, keep_replicas)
        for path in [path for paths in layout.left_behind.values() for path in paths]:
            path.unlink(missing_ok=True)
        remove_record(settings)
        remove_run_dir(settings.state_dir)
    if far:
        raise PartFailed(
            f"this stack is down, and {len(far)} replicas elsewhere were not seen gone and may still run: "
            f"{', '.join(far)}; when their hosts answer again, type `hostler up -d`, which ends them, and"
            " `hostler down`"
        )
    return True


def _stop_replicas(settings: Settings, record: Record, say: Say, grace_s: int, hurry: threading.Event) -> list[str]:
    """Through the API, so that the history says who stopped them. What it cannot do is done by signals later.

    No signal reaches what is elsewhere: returns the replicas there that were not seen gone, in words.
    """
    far: dict[str, str] = {}
    # the stack's own key first: the caller's variable may be for another stack
    key = read_secret(settings.state_dir, ADMIN_KEY) or settings.api_key
    api = Api(record.url, certificate=record.certificate, key=key)
    try:
        # from here on nothing is launched any more; what is queued waits for the next `up`
        Supervisor(settings).stop(f"{GROUP}:worker")
        replicas = _of_this_host(api, Layout(settings.state_dir), settings.node_name)
        if not settings.database_url:
            # with the state ends who looks after those that we run elsewhere
            elsewhere = _of_no_host(api)
            far = {row["replica_id"]: f"{row['replica_id']} of pool {row['pool']}" for row in elsewhere}
            replicas += elsewhere
        left = _stopped(api, replicas, say, grace_s, hurry) if replicas else []
        if not settings.database_url and not hurry.is_set():
            _end_idle_jobs(settings, api, say)
    except (ApiSilent, SupervisorGone) as error:
        say(f"{error}; engines are ended by signals")
        return list(far.values())
    here = sorted(set(left) - set(far))
    if here:
        say(f"{len(here)} replicas are not gone yet: {', '.join(here)}; what of them is on this host is killed")
    return [words for replica_id, words in far.items() if replica_id in left]


def _stopped(api: Api, replicas: list[dict[str, Any]], say: Say, grace_s: int, hurry: threading.Event) -> list[str]:
    """Ask for their stops and wait; returns those that are not gone in time."""
    say(f"stopping {len(replicas)} replicas:")
    for row in replicas:
        say(f"  {row['replica_id']}  {row.get('model_name') or '-'}  {row.get('status')}")
    with ThreadPoolExecutor(_CALLS) as pool:
        refused = pool.map(lambda row: api.stop_replica(row["replica_id"], grace_s), replicas)
        for row, why in zip(replicas, refused, strict=True):
            if why:
                say(f"  {row['replica_id']} was not stopped: {why}")
    return _wait_released(api, [row["replica_id"] for row in replicas], say, grace_s, hurry)


def _end_idle_jobs(settings: Settings, api: Api, say: Say) -> None:
    """What waits in a cluster for the next replica ends now: nobody is left to launch one."""
    argv = [sys.executable, "-P", "-m", "workers.idle_jobs"]
    workers = as_workers(settings, os.environ)
    try:
        if not api.has_pool_of(_SHARES_JOBS):
            return
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_IDLE_S, check=False, **workers)
    except (ApiSilent, OSError, subprocess.TimeoutExpired) as error:
        # no reason to leave anything else up: they end by themselves
        say(_IDLE_STAY.format(error))
        return
    said = done.stderr.splitlines()[-5:]
    if done.returncode != 0:
        # of a traceback the last line says what it was
        say(_IDLE_STAY.format(said[-1] if said else f"exit code {done.returncode}"))
        return
    for line in said:
        say(line)
    if ended := json.loads(done.stdout):
        say(f"ending {len(ended)} jobs on which no replica was left: {', '.join(ended)}")


def _of_this_host(api: Api, layout: Layout, node: str) -> list[dict[str, Any]]:
    """Replicas whose engine lives here, and those that are being launched here."""
    found = {row["replica_id"]: row for state in _ON_THE_WAY for row in api.replicas(state) if row.get("node") == node}
    for replica_id in {one.replica_id for one in engines(layout)} - set(found):
        row = api.replica(replica_id) if replica_id else None
        if row is not None and row.get("released_at") is None:
            found[row["replica_id"]] = row
    return list(found.values())


def _of_no_host(api: Api) -> list[dict[str, Any]]:
    """Replicas that run on no host of ours: behind SSH, in a cluster's queue."""
    # failed: given up, and perhaps never seen gone
    states = [state for state in State if (state in LIVE and state is not State.PENDING) or state is State.FAILED]
    rows = [row for state in states for row in api.replicas(state)]
    return [row for row in rows if row.get("node") is None and row.get("attempt") and row.get("released_at") is None]


def _wait_released(api: Api, wanted: list[str], say: Say, grace_s: int, hurry: threading.Event) -> list[str]:
    """Those that are not gone in time. Who cannot be asked to end gets less of it: their hosts may never answer."""
    begun = time.monotonic()
    # as long again for the requests in flight
    deadline = begun + 2 * grace_s + _MORE_S
    left, away = list(wanted), dict[str, str]()
    # one after the other: they end side by side, and a host may hold many
    while left and not hurry.is_set() and time.monotonic() < deadline:
        row = api.replica(left[0])
        if _is_gone(row):
            left.pop(0)
        elif (trouble := _trouble_of(row)) and time.monotonic() - begun >= _AWAY_S:
            away[left.pop(0)] = trouble
        else:
            hurry.wait(_LOOK_S)
    # behind one that stays others may have gone
    stay = [one for one in [*left, *away] if not _is_gone(api.replica(one))]
    if unasked := [away[one] for one in stay if one in away]:
        told = "; ".join(sorted(set(unasked)))
        say(f"{len(unasked)} replicas could not be asked to end for {_AWAY_S:.0f} s, and are not waited for: {told}")
    return stay


def _is_gone(row: dict[str, Any] | None) -> bool:
    return row is None or row.get("released_at") is not None


def _trouble_of(row: dict[str, Any] | None) -> str:
    """Why it could not be asked to end, when it was last tried; empty when it could."""
    attempts = (row or {}).get("attempts") or [{}]
    return str(attempts[-1].get("stop_trouble") or "")


def _end_engines(layout: Layout, say: Say, grace_s: float, hurry: threading.Event) -> None:
    """SIGTERM to the process groups of what is left, SIGKILL after the grace. Shims write down how it ended."""
    left = [one for one in engines(layout) if one.role == ENGINE]
    if left:
        say(f"ending {len({one.attempt for one in left})} engines by signal")
    for group in _groups(left):
        _signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while left and time.monotonic() < deadline and not hurry.wait(_LOOK_S):
        left = [one for one in engines(layout) if one.role == ENGINE]
    for group in _groups(left):
        _signal_group(group, signal.SIGKILL)
    # who left the group, then the shims, which end by themselves once nobody holds their pipe
    end([one for one in engines(layout) if one.role == ENGINE], wait_s=0, number=signal.SIGKILL)
    deadline = time.monotonic() + 5
    while engines(layout) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    end(engines(layout), wait_s=0, number=signal.SIGKILL)


def _groups(found: list[Found]) -> set[int]:
    """Process groups whose leader is one of ``found``: only those are surely ours to signal as a whole."""
    return {one.process.pid for one in found if _leads(one.process)}


def _leads(process: psutil.Process) -> bool:
    try:
        return os.getpgid(process.pid) == process.pid and process.is_running()
    except OSError:
        return False


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


def _check_gone(layout: Layout, keep_replicas: bool) -> None:
    left = control_plane(layout) + ([] if keep_replicas else engines(layout))
    if left:
        names = ", ".join(f"{one.role} (pid {one.process.pid})" for one in left)
        raise PartFailed(f"these would not end: {names}; look at them with `ps -fp PID` and run `hostler down` again")
