"""What may be shown: values whose names sound secret are masked wherever a request is repeated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

MASK = "***"
# "tokens" alone (max_tokens, tokens_per_s) is a count, not a credential
_SECRET = re.compile(
    r"(?:^|[_-])(?:key|keys|apikey|token|secret|secrets|password|passwd|pass|credential|credentials|auth|authorization)$",
    re.IGNORECASE,
)


def sounds_secret(name: str) -> bool:
    """Whether a field or variable of that name is masked."""
    return bool(_SECRET.search(name))


def mask(value: Any) -> Any:
    """A copy with secret-sounding fields masked, at any depth."""
    if isinstance(value, Mapping):
        return {name: MASK if sounds_secret(name) and inner else mask(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return value


def mask_environment(environment: Mapping[str, str], public: Iterable[str]) -> dict[str, str]:
    """Values masked but for the names that the engine marks public (a trailing ``*`` is a prefix)."""
    shown = tuple(public)
    return {name: value if name_matches(name, shown) else MASK for name, value in environment.items()}


def name_matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether an environment name is one of ``patterns``; a trailing ``*`` matches any rest."""
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in patterns)
