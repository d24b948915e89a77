"""What of a Slurm pool's options a request may change: the pool's allow-list, and what only an admin may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def refused_options(pool: Mapping[str, Any], own: Mapping[str, Any], *, admin: bool) -> dict[str, str]:
    """Message per option that a request may not set so. ``pool``: the pool's options, ``own``: the request's.

    The allow-list is the pool's option ``allow``: per option its allowed values, ``["*"]`` for any. An option without
    an entry may be set to anything that its schema takes, except ``extra``: flags of sbatch must be allowed by name.
    """
    refused = {}
    allow = pool.get("allow") or {}
    for option, value in own.items():
        if admin or pool.get(option) == value:
            continue
        if option == "allow":
            refused[option] = "Only an admin sets what a request may ask for, in the pool."
        elif option == "extra":
            names = [flag.partition("=")[0] for flag in value if flag not in pool.get("extra", ())]
            strangers = [name for name in names if not _allows(allow.get("extra", []), name)]
            if strangers:
                refused[option] = f"The pool allows no {', '.join(strangers)}.{_known(allow.get('extra', []))}"
        elif option in allow and not _allows(allow[option], value):
            refused[option] = f"The pool does not allow {value!r}.{_known(allow[option])}"
    return refused


def merged_flags(pool: Sequence[str], own: Sequence[str]) -> list[str]:
    """The pool's flags of sbatch, which no request drops, and the request's, each of which replaces its namesake."""
    names = {flag.partition("=")[0] for flag in own}
    return [*(flag for flag in pool if flag.partition("=")[0] not in names), *own]


def _allows(allowed: list[Any], value: object) -> bool:
    return "*" in allowed or value in allowed or str(value) in [str(one) for one in allowed]


def _known(allowed: list[Any]) -> str:
    return f" It allows: {', '.join(map(str, allowed))}." if allowed else " It allows none."
