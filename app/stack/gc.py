"""``hostler gc``: what a stack has left behind on this host and in its database, and its removal.

What needs the database or an attempt's folder is ``workers.gc``'s, in a process of its own and as the user whose
attempts they are. Here is what lies beside them: sockets and pid files of processes that are gone, and Postgres's
places of state dirs that were deleted.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import psutil

from app.settings import Settings
from app.stack.as_workers import as_workers
from app.stack.errors import PartFailed
from app.stack.layout import POSTGRES_SOCKET, REDIS_SOCKET, SUPERVISOR_SOCKET, Layout
from app.stack.lock import locked
from app.stack.places import leftovers, remove_leftovers
from app.stack.processes import control_plane
from app.stack.roles import POSTGRES, REDIS, SUPERVISOR
from app.usecases.leaks import Leak

_NO_DATABASE = 3
_LONGEST_S = 300

Say = Callable[[str], None]


def find(settings: Settings, say: Say) -> list[Leak]:
    """Everything that leaked, as far as can be known now, unchanged; ``say`` tells what could not be looked at."""
    if not settings.state_dir.is_dir():
        return []
    return [*_files(Layout(settings.state_dir)), *_places(), *_workers_gc(settings, say)]


def remove(settings: Settings, leaks: Iterable[Leak], say: Say) -> list[Leak]:
    """Remove of ``leaks`` what is one still; returns what came of each: ``removed`` None for what is none any more."""
    wanted = list(leaks)
    done = _workers_gc(
        settings, say, [one for one in wanted if one.kind not in ("socket", "pid_file", "postgres_place")]
    )
    names = {(one.kind, one.name) for one in wanted}
    if any(kind in ("socket", "pid_file") for kind, _ in names):
        # nobody is starting at this moment, whose socket is there and does not answer yet
        with locked(settings.state_dir, say):
            for leak in _files(Layout(settings.state_dir)):
                if (leak.kind, leak.name) in names:
                    Path(leak.name).unlink(missing_ok=True)
                    done.append(replace(leak, removed=True))
    if any(kind == "postgres_place" for kind, _ in names):
        done += [Leak("postgres_place", str(place), "its state dir was deleted", True) for place in remove_leftovers()]
    dealt_with = {(one.kind, one.name) for one in done}
    settled = [one for one in wanted if (one.kind, one.name) not in dealt_with]
    return done + [replace(one, error="was gone, or wanted, by then") for one in settled]


def _files(layout: Layout) -> list[Leak]:
    """Sockets and pid files whose process is gone; none of a part that runs or is being started again."""
    running = {one.role for one in control_plane(layout)}
    # while supervisor lives it starts the others again, and what they leave is theirs
    if SUPERVISOR in running:
        running |= {POSTGRES, REDIS, *layout.left_behind}
    files = {role: [*paths] for role, paths in layout.left_behind.items()} | {
        SUPERVISOR: [layout.supervisor_socket, layout.state_dir / "supervisor.pid"],
        REDIS: [layout.run / REDIS_SOCKET],
        POSTGRES: [
            layout.postgres_sockets / POSTGRES_SOCKET,
            layout.postgres_sockets / f"{POSTGRES_SOCKET}.lock",
            layout.postgres_data / "postmaster.pid",
        ],
    }
    found = []
    for role, paths in files.items():
        for path in paths if role not in running else []:
            if os.path.lexists(path) and not _in_use(path):
                kind = "socket" if path.is_socket() else "pid_file"
                found.append(Leak(kind, str(path), f"{role} does not run"))
    # supervisor binds under a name with its pid and renames it; one that was killed in between leaves that
    for path in layout.run.glob(f"{SUPERVISOR_SOCKET}.*") if layout.run.is_dir() else []:
        pid = path.name.rpartition(".")[2]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            found.append(Leak("socket", str(path), f"process {pid} is gone"))
    return found


def _in_use(path: Path) -> bool:
    """Whether somebody listens on the socket, or lives under the pid that the file names: one that was not found by
    its marks. What cannot be told counts as in use."""
    if path.is_socket():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                return False
            except OSError:
                return True
        return True
    try:
        pid = int(path.read_text().split("\n", 1)[0])
        return psutil.Process(pid).name() in ("postgres", "supervisord", "python", "python3")
    except (psutil.NoSuchProcess, FileNotFoundError, ValueError):
        return False
    except (psutil.AccessDenied, OSError):
        return True


def _places() -> list[Leak]:
    return [Leak("postgres_place", str(place), "its state dir was deleted") for place in leftovers()]


def _workers_gc(settings: Settings, say: Say, wanted: list[Leak] | None = None) -> list[Leak]:
    """``workers.gc``'s part: looked for when ``wanted`` is None, else removed."""
    if wanted == []:
        return []
    done = subprocess.run(
        [sys.executable, "-P", "-m", "workers.gc", *([] if wanted is None else ["--remove"])],
        input=json.dumps([one.body() for one in wanted or []]),
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
        **as_workers(settings, os.environ),
    )
    if done.returncode == _NO_DATABASE:
        say(f"attempts, leases and rows were not looked at: {done.stderr.strip()}")
        say(f"what runs may well be wanted; next: hostler up -d --state-dir {settings.state_dir}")
        return []
    if done.returncode != 0:
        raise PartFailed(f"python -m workers.gc: {done.stderr.strip()[-500:]}")
    return [Leak(**one) for one in json.loads(done.stdout)]
