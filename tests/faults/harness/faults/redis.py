"""Redis forgets everything, or comes back with what it knew: bells are lost, doubled or late."""

from __future__ import annotations

import random
import signal
from collections.abc import Mapping
from typing import Any

import redis

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack


class FlushRedis:
    weight = 3

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        try:
            return {"flushed": bool(stack.broker().flushall())}
        except redis.RedisError as error:
            return {"flushed": False, "why": str(error)}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        """What was lost stays lost."""


class RestartRedis:
    """Killed; ``keep`` brings its data back, as a Redis with a disk would."""

    weight = 4

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"keep": rng.random() < 0.5}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        dump = stack.layout.redis / "dump.rdb"
        dump.unlink(missing_ok=True)
        kept = False
        if arguments["keep"]:
            try:
                kept = bool(stack.broker().save())
            except redis.RedisError:
                kept = False
        return {"pids": stack.send(stack.pids("redis"), signal.SIGKILL), "kept": kept}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        (stack.layout.redis / "dump.rdb").unlink(missing_ok=True)
