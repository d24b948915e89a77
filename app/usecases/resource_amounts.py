"""``resources`` of a request: what of it a backend sees to, as numbers that are some."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from typing import Any

from app.errors import InvalidConfig

MEBI = 2**20
#: Nothing less than recipes take; a backend may take less.
_MOST_HOSTS = 1024
_MOST_CPUS = 65536
_MOST_BYTES = 512 * 2**40
_MOST_SECONDS = 3660 * 24 * 3600
_UNITS = {"": 1, "K": 2**10, "M": MEBI, "G": 2**30, "T": 2**40}
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)([KMGT]?)i?B?", re.ASCII)


def amounts(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are there of ``nodes``, ``cpu``, ``memory`` (in bytes) and ``time_limit_s``. Raises InvalidConfig,
    which names each that is none."""
    found: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for name, (read, told) in _READERS.items():
        if resources.get(name) is None:
            continue
        value = read(resources[name])
        if value is None:
            errors[f"resources.{name}"] = [told]
        else:
            found[name] = value
    if errors:
        field, messages = next(iter(errors.items()))
        raise InvalidConfig(f"{field}: {messages[0]}", errors=errors)
    return found


def _hosts(wish: Any) -> int | None:
    whole = isinstance(wish, int) and not isinstance(wish, bool)
    return wish if whole and 1 <= wish <= _MOST_HOSTS else None


def _cpus(wish: Any) -> float | None:
    count = _number(wish)
    return count if count is not None and 0.001 <= count <= _MOST_CPUS else None


def _seconds(wish: Any) -> float | None:
    seconds = _number(wish)
    return seconds if seconds is not None and 1 <= seconds <= _MOST_SECONDS else None


def _number(wish: Any) -> float | None:
    """A number, or one in decimal digits; what is not finite lies in no bounds."""
    if isinstance(wish, str):
        return float(wish) if _NUMBER.fullmatch(wish) else None
    return wish if isinstance(wish, int | float) and not isinstance(wish, bool) else None


def _bytes(wish: Any) -> int | None:
    written = _MEMORY.fullmatch(str(wish)) if isinstance(wish, str | int) else None
    if written is None:
        return None
    size = float(written[1]) * _UNITS[written[2]]
    return ceil(size) if 0 < size <= _MOST_BYTES else None


_READERS = {
    "nodes": (_hosts, f"A whole number from 1 to {_MOST_HOSTS}."),
    "cpu": (_cpus, f"A number of CPUs from 0.001 to {_MOST_CPUS}."),
    "memory": (_bytes, "A size of more than nothing and at most 512T, such as 64G or 512M."),
    "time_limit_s": (_seconds, f"Seconds, from 1 to {_MOST_SECONDS}."),
}
