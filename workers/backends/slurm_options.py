"""The options of the Slurm backend: pool ``options`` and a replica's ``backend_options``."""

from __future__ import annotations

import re
from typing import Any

from app.domain.slurm_script import DEFAULT_FOLDER
from app.domain.slurm_shared import DEFAULT_STAY_S, MOST_SEATS, SEATS
from workers.backends.options import LOG_BYTES_SCHEMA, PATH_MAP_SCHEMA, PATH_SCHEMA, ports_schema
from workers.transports.options import SSH_SCHEMA, TUNNEL_SCHEMA

#: A value of one of sbatch's options: one line of printable ASCII that begins with no hyphen.
_VALUE = r"^[!-,.-~][ -~]{0,500}$(?!\n)"
#: What reaches files, other users or programs of ours is not for requests to say.
_RESERVED = (
    "job-name|comment|chdir|workdir|output|error|input|open-mode|export|export-file|get-user-env|wrap|array|parsable|"
    "uid|gid|nodes|ntasks|ntasks-per-node|wait|test-only|hold|bcast|propagate|clusters|help|version|usage|quiet|verbose"
)


def _beginnings(name: str) -> str:
    """A pattern of all that sbatch takes for ``name``: it completes what is cut off."""
    pattern = ""
    for sign in reversed(name):
        pattern = f"(?:{re.escape(sign)}{pattern})?"
    return f"{re.escape(name[0])}{pattern[len(f'(?:{re.escape(name[0])}') : -2]}"


_NOT_OURS = "|".join(_beginnings(name) for name in _RESERVED.split("|"))
_FLAG = rf"^--(?!(?:{_NOT_OURS})(?:=|$))[a-z][a-z0-9-]*(?:=[ -~]{{0,500}})?$(?!\n)"


def _text(doc: str, pattern: str = _VALUE) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern, "description": doc}


def _nodes(doc: str) -> dict[str, Any]:
    # what holds a slash is a file to sbatch, which it reads as the worker's user
    return _text(doc, pattern=_VALUE.replace("^", "^(?![^/]*/)", 1))


def _flag(doc: str) -> dict[str, Any]:
    return {"type": "boolean", "description": doc}


OPTIONS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "if": {"properties": {"tunnel": {"const": True}}, "required": ["tunnel"]},
    "then": {"required": ["ssh"]},
    "properties": {
        # where
        "ssh": SSH_SCHEMA,
        "folder": {
            "type": "string",
            # in a path for output sbatch reads a backslash as no part of it
            "pattern": "^(?:/|~/)[^\\x00-\\x1f\\\\]*$(?!\\n)",
            "x-admin": True,
            "description": "Where attempts are kept: a folder that the host with Slurm's commands and the compute nodes"
            f" share. `{DEFAULT_FOLDER}` by default.",
        },
        "slurm_conf": {
            "type": "string",
            "pattern": "^/",
            "x-admin": True,
            "description": "Path of slurm.conf on that host, where it is not the usual one.",
        },
        "commands": {
            "type": "string",
            "pattern": "^/",
            "x-admin": True,
            "description": "Folder of Slurm's commands, where they are not on the PATH.",
        },
        "python": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_./+-]+$(?!\n)",
            "x-admin": True,
            "description": "Python 3.6 or newer on that host and on the compute nodes; `python3` by default.",
        },
        "path_map": PATH_MAP_SCHEMA,
        # what a job is
        "partition": _text("Partition, or several with commas."),
        "account": _text("Account that is charged."),
        "qos": _text("Quality of service."),
        "constraint": _text("Features that nodes must have."),
        "reservation": _text("Reservation to run in."),
        "dependency": _text("Jobs that it waits for, as sbatch takes them."),
        "exclude": _nodes("Nodes that it must not run on."),
        "nodelist": _nodes("Nodes that it must run on."),
        "licenses": _text("Licenses that it takes."),
        "gres": _text("Generic resources, instead of `gpu:COUNT` by the GPUs asked for."),
        "gpu_type": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_.-]{1,64}$(?!\n)",
            "description": "Kind of the GPUs, as gres.conf names it.",
        },
        "time_limit": {
            "description": "Longest run: minutes, or as sbatch takes it (`1-12:00:00`).",
            "oneOf": [
                {"type": "integer", "minimum": 1, "maximum": 525600},
                {"type": "string", "pattern": r"^(?:(?:[0-9]{1,4}-)?[0-9]{1,6}(?::[0-9]{1,2}){0,2}|UNLIMITED)$(?!\n)"},
            ],
        },
        "cpus": {"type": "integer", "minimum": 1, "maximum": 4096, "description": "CPUs on each node."},
        "memory": {
            "type": "string",
            "pattern": r"^[0-9]{1,9}[KMGT]?$(?!\n)",
            "description": "Memory on each node, such as `64G`; `0`: all of it.",
        },
        SEATS: {
            "type": "integer",
            "minimum": 1,
            "maximum": MOST_SEATS,
            "description": "So many replicas share one job, each with GPUs, CPUs, memory and a port of its own; 1 by"
            " default. A service by a recipe with `gpu_per_replica` sets it to the replicas of one node.",
        },
        "job_stay_s": {
            "type": "integer",
            "minimum": 0,
            "maximum": 3600,
            "description": "For so long (s) a shared job that has no replica left waits for the next one; "
            f"{DEFAULT_STAY_S} by default.",
        },
        "exclusive": _flag("The nodes are shared with no other job."),
        "nice": {"type": "integer", "minimum": 0, "maximum": 2147483645, "description": "Be less urgent by so much."},
        "begin": _text("Not before that time, as sbatch takes it."),
        "requeue": _flag(
            "Whether Slurm may run it again after a preemption or a lost node; the cluster's own by default."
        ),
        "extra": {
            "type": "array",
            "maxItems": 32,
            "items": {
                "type": "string",
                "pattern": _FLAG,
                "description": "A flag of sbatch, `--name=value`, none of those that Hostler itself sets.",
            },
            "description": "More flags for sbatch, each `--name=value`. A request may use those that the pool allows.",
        },
        "allow": {
            "type": "object",
            "x-admin": True,
            "description": "Per option the values that requests may ask for (`extra`: names of flags); `*` allows any.",
            "additionalProperties": {"type": "array", "items": {"type": ["string", "integer", "boolean"]}},
        },
        # what runs in it
        "network": {
            "type": "string",
            "pattern": r"^[0-9]{1,3}(?:\.[0-9]{1,3}){3}/(?:[89]|[12][0-9]|3[0-2])$(?!\n)",
            "format": "cidr",
            "x-admin": True,
            "description": "The network (CIDR) in which nodes are reached; by default the one of the node's own name.",
        },
        "ports": ports_schema(1024),
        "path": PATH_SCHEMA,
        "setup": {
            "type": "array",
            "items": {"type": "string", "pattern": "^[^\\x00-\\x08\\x0a-\\x1f]*$(?!\\n)"},
            "x-admin": True,
            "x-tabs": True,
            "description": "Lines of shell that the job runs first, such as `module load cuda`.",
        },
        "passes": {
            "type": "array",
            "items": {"type": "string", "pattern": r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)"},
            "x-admin": True,
            "description": "Variables of the job, as `setup` left them, that the engine gets (`LD_LIBRARY_PATH`).",
        },
        "apptainer": {
            "type": "object",
            "additionalProperties": False,
            "required": ["image"],
            "x-admin": True,
            "description": "Run the command by `apptainer exec` in this image.",
            "properties": {
                "image": {"type": "string", "minLength": 1},
                "binds": {"type": "array", "items": {"type": "string", "minLength": 1}},
                "nv": {"type": "boolean"},
                "program": {"type": "string", "minLength": 1},
            },
        },
        "log_bytes": LOG_BYTES_SCHEMA,
        "tunnel": TUNNEL_SCHEMA,
        "squeue": {
            "enum": ["json", "fixed"],
            "x-admin": True,
            "description": "How squeue is asked; by its version by default.",
        },
    },
}
# a limit on what there is not would limit nothing; what is an admin's alone needs none
OPTIONS_SCHEMA["properties"]["allow"]["propertyNames"] = {
    "enum": [name for name, rule in OPTIONS_SCHEMA["properties"].items() if not rule.get("x-admin")]
}
