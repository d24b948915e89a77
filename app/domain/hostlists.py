"""Names of hosts as Slurm writes them together: ``node[01-03,07],login1``, also with several brackets."""

from __future__ import annotations

import re

#: More hosts than this are no job of ours.
MOST_HOSTS = 65536
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def expand_hosts(listed: str) -> list[str]:
    """Each host once, in the order written. Raises ValueError for what is no list of hosts."""
    hosts: dict[str, None] = {}
    for part in _parts(listed):
        hosts.update(dict.fromkeys(_expand(part)))
        if len(hosts) > MOST_HOSTS:
            raise ValueError(f"more than {MOST_HOSTS} hosts")
    return list(hosts)


def _parts(listed: str) -> list[str]:
    """Cut at the commas that stand in no brackets."""
    parts, depth, part = [], 0, ""
    for sign in listed.strip():
        depth += (sign == "[") - (sign == "]")
        if sign == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += sign
    if depth:
        raise ValueError(f"{listed!r} has a bracket without its other one")
    return [part for part in [*parts, part] if part]


def _expand(part: str) -> list[str]:
    found = _BRACKETS.search(part)
    if found is None:
        if "[" in part or "]" in part:
            raise ValueError(f"{part!r} has brackets in brackets")
        return [part]
    numbers = [number for item in found[1].split(",") for number in _numbers(item.strip())]
    rests = _expand(part[found.end() :]) if part[found.end() :] else [""]
    if len(numbers) * len(rests) > MOST_HOSTS:
        raise ValueError(f"{part!r} are more than {MOST_HOSTS} hosts")
    return [f"{part[: found.start()]}{number}{rest}" for number in numbers for rest in rests]


def _numbers(item: str) -> list[str]:
    found = _RANGE.fullmatch(item)
    if found is None:
        raise ValueError(f"{item!r} is no number and no range")
    first, last = found[1], found[2] or found[1]
    if int(last) < int(first) or int(last) - int(first) >= MOST_HOSTS:
        raise ValueError(f"{item!r} is no range of hosts")
    return [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
