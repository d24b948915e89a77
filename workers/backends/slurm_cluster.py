"""What a cluster has, from ``sinfo``: one line per node and partition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_GPU = re.compile(r"gpu(?::([^:(,]+))?:(\d+)")
_AWAY = ("down", "drain", "fail", "maint", "reserved", "unk", "inval", "boot", "power")
_MEBI = 1024 * 1024


def describe(nodes: str, partition: str | None) -> dict[str, Any]:
    """``cpus``, ``memory_bytes``, ``gpus`` of the nodes that take jobs, and ``partitions``; ``nodes``: sinfo's lines.

    Only of ``partition`` when one is given (or of several, with commas).
    """
    wanted = set(partition.split(",")) if partition else None
    seen: dict[str, tuple[int, int, str, str]] = {}
    partitions: dict[str, None] = {}
    for line in nodes.splitlines():
        words = line.split("|")
        if len(words) != 6:
            continue
        node, cpus, memory, gres, state, name = words
        partitions[name] = None
        if wanted is None or name in wanted:
            seen[node] = (_count(cpus), _count(memory), gres, state.lower())
    fit = {node: values for node, values in seen.items() if not values[3].startswith(_AWAY)}
    return {
        "cpus": sum(values[0] for values in fit.values()),
        "memory_bytes": sum(values[1] for values in fit.values()) * _MEBI,
        "gpus": [gpu for node, values in sorted(fit.items()) for gpu in _gpus(node, values[2])],
        "gpu_source": "slurm",
        "nodes": {"known": len(seen), "fit": len(fit)},
        "partitions": list(partitions),
    }


def lacking(seen: Mapping[str, Any], partition: str | None, folder: str) -> str:
    """What jobs will meet there, of what the pool's options name; ``folder``: what is wrong with that of the attempts.
    Empty when all is well."""
    strangers = [one for one in (partition or "").split(",") if one and one not in seen["partitions"]]
    if strangers:
        return f"there is no partition {strangers[0]}; there are: {', '.join(seen['partitions']) or 'none'}"
    if not seen["nodes"]["fit"]:
        return f"no node {f'of partition {partition} ' if partition else ''}takes jobs now"
    return folder


def _count(said: str) -> int:
    """``64`` or, where nodes differ, ``64+``."""
    digits = said.rstrip("+")
    return int(digits) if digits.isdigit() else 0


def _gpus(node: str, gres: str) -> list[dict[str, Any]]:
    found = []
    for kind, count in _GPU.findall(gres):
        # numbered per node; Slurm decides which of them a job gets
        found += [{"index": index, "name": kind or "gpu", "node": node} for index in range(int(count))]
    return found
