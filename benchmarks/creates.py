"""Many creates at once, over a few kept connections, as one client with a batch would send them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.stack import Api, Stack

CONNECTIONS = 8


def create_many(ours: Stack, wish: Mapping[str, Any], count: int) -> list[str]:
    """The ids of ``count`` new replicas; returns when the last create was accepted."""
    local = threading.local()

    def create(_: int) -> str:
        if not hasattr(local, "api"):
            local.api = Api(ours.port, ours.key)
        return str(local.api.create(wish))

    with ThreadPoolExecutor(min(CONNECTIONS, count)) as pool:
        return list(pool.map(create, range(count)))
