"""One Slurm job for several replicas: what it asks for, who may share it, and the script that is submitted for it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from app.domain.slurm_script import (
    KEY_NOT_SHOWN,
    Job,
    command_lines,
    container_argv,
    directive_lines,
    directives_of,
    setup_lines,
)

#: The option that says how many replicas a job has seats for.
SEATS = "replicas_per_job"
MOST_SEATS = 64
#: For so long (s) a job that has no replica left waits for the next one, such as the successor of one that failed.
DEFAULT_STAY_S = 15
#: What differs from launch to launch, or is asked for each replica alone.
_ITS_OWN = ("job-name", "comment", "chdir", "output")


def seats_of(options: Mapping[str, Any]) -> int:
    """For how many replicas a job has room."""
    return int(options.get(SEATS) or 1)


def limit_s(options: Mapping[str, Any]) -> int | None:
    """The job's time limit in seconds; None where there is none (0, to Slurm), or the partition's applies."""
    said = options.get("time_limit")
    if said is None or said == "UNLIMITED":
        return None
    days, _, rest = str(said).rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, minutes, seconds = (*parts, 0, 0)[:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds or None
    if len(parts) < 3:  # MM, MM:SS
        minutes, seconds = (*parts, 0)[:2]
        return minutes * 60 + seconds or None
    return (parts[0] * 60 + parts[1]) * 60 + parts[2] or None


def key_of(namespace: str, service: str, options: Mapping[str, Any], gpus: int) -> str:
    """Stands for all that two replicas must have in common to share a job: their service (or none), what is asked of
    Slurm, what runs before them, and GPUs of each."""
    job = Job("", "", 0, "", "", (), gpus)
    asked = [one for one in directives_of(job, options) if one[0] not in _ITS_OWN]
    others = [options.get(name) for name in ("setup", "python", "job_stay_s", SEATS)]
    said = json.dumps([namespace, service, asked, others, gpus], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def mark_of_folder(root: str) -> str:
    """What the keys of all jobs begin with whose attempts are kept in that folder.

    Several pools may use one cluster with folders of their own, and none of them knows the others' jobs.
    """
    return hashlib.sha256(root.encode()).hexdigest()[:8]


def is_of_other_folder(job_name: str, root: str) -> bool:
    """Whether a shared job of that name has its attempts elsewhere than in ``root``."""
    found = re.search(r"-shared-([0-9a-f]{8})[0-9a-f]{16}-[0-9]+$", job_name)
    return found is not None and found[1] != mark_of_folder(root)


def whole(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the job: CPUs and memory are each replica's, and it asks for those of all its seats."""
    seats = seats_of(options)
    found = dict(options)
    if "cpus" in options:
        found["cpus"] = options["cpus"] * seats
    amount = re.fullmatch(r"([0-9]+)([KMGT]?)", options.get("memory") or "")
    if amount:
        found["memory"] = f"{int(amount[1]) * seats}{amount[2]}"
    return found


def render_shared(name: str, nonce: str, folder: str, gpus: int, options: Mapping[str, Any], key: str = "") -> str:
    """The whole script of a job whose replicas get ``gpus`` each. Raises NoDirective."""
    seats = seats_of(options)
    job = Job(name, "", 0, nonce, folder, (), gpus * seats)
    each = f" of {gpus} GPU{'s' if gpus > 1 else ''} each" if gpus else ""
    lines = [
        "#!/bin/bash",
        f"# Hostler: {seats} seats{each}, for as many replicas. What runs on them is written in the folders of their",
        "# attempts; their environments, which may hold secrets, are sealed there. It ends when no seat is taken.",
        *directive_lines(job, whole(options)),
        "",
        "trap '' USR1",
        f"cd -- {shlex.quote(folder)} || exit 1",
        *setup_lines(options),
        f"exec {shlex.quote(options.get('python', 'python3'))} -I -S share.pyz {nonce} <<'END'",
        key or KEY_NOT_SHOWN,
        "END",
    ]
    return "\n".join(lines) + "\n"


def render_seat(argv: Sequence[str], options: Mapping[str, Any]) -> str:
    """What runs on a seat, for people to read."""
    return "# On its seat of a shared job:\n" + "\n".join(command_lines(container_argv(argv, options))) + "\n"
