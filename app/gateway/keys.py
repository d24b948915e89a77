"""Keys as HAProxy's maps. Pure.

A record is ``id|role|all or some|expiry|requests per second|in flight``, found by the SHA-256 of the whole key; what is
0 is not limited. A limited key has one line per model beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from app.domain.routing import hashed

#: hash of a key -> its record
KEYS = "keys.map"
#: ``id|hash of a model`` -> 1, for keys that are limited to models
KEY_MODELS = "key_models.map"
NAMES = (KEYS, KEY_MODELS)


@dataclass(frozen=True)
class KeyFacts:
    """What is stored of a live key. ``models`` is None when it may ask all."""

    id: str
    hash: str
    role: str
    models: Sequence[str] | None = None
    limits: Mapping[str, Any] = field(default_factory=dict)
    expires_at: datetime | None = None


def make_key_maps(keys: Iterable[KeyFacts]) -> dict[str, dict[str, str]]:
    """Both maps as key -> value."""
    records: dict[str, str] = {}
    models: dict[str, str] = {}
    for key in keys:
        records[key.hash] = "|".join(
            (
                key.id,
                key.role,
                "all" if key.models is None else "some",
                # rounded down: it may end a moment early, never late
                str(math.floor(key.expires_at.timestamp()) if key.expires_at else 0),
                str(int(key.limits.get("requests_per_second") or 0)),
                str(int(key.limits.get("concurrent_requests") or 0)),
            )
        )
        for model in key.models or ():
            models[f"{key.id}|{hashed(model)}"] = "1"
    return {KEYS: records, KEY_MODELS: models}
