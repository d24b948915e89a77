"""The disk that holds the attempts' folders, with plans, records and logs of engines, is full for a while."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

from tests.faults.harness.faults.base import Hit
from tests.faults.harness.stack import FaultyStack

_CHUNK = b"\0" * 1024 * 1024


class FillDisk:
    weight = 2

    def draw(self, rng: random.Random) -> Mapping[str, Any]:
        return {"for_s": round(rng.uniform(0.5, 2.5), 2)}

    def inject(self, stack: FaultyStack, arguments: Mapping[str, Any]) -> Hit:
        # asked anew: whoever took the small disk away meanwhile would have us fill the host's
        if not stack.has_disk or not stack.layout.attempts.is_mount():
            return {"filled": False, "why": "only root may mount a small disk for it"}
        file = os.open(stack.layout.attempts / ".filler", os.O_WRONLY | os.O_CREAT, 0o600)
        chunk = _CHUNK
        try:
            # to the last byte
            while chunk:
                try:
                    os.write(file, chunk)
                except OSError:
                    chunk = chunk[: len(chunk) // 2]
        finally:
            os.close(file)
        return {"filled": True}

    def heal(self, stack: FaultyStack, arguments: Mapping[str, Any], hit: Hit) -> None:
        (stack.layout.attempts / ".filler").unlink(missing_ok=True)
