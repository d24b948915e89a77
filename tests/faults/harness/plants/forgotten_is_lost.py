"""What a cluster knows no more has ended, though the program around its engine says that it lives.

A controller that is killed forgets what it accepted last, and its node goes on with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _hear_no_sign_of_life(source: bytes) -> bytes:
    line = b'told["alive_s"] = now - alive'
    assert line in source
    return source.replace(line, b"pass")


PATCHES: dict[str, Callable[[Any], Any]] = {"workers.backends.slurm_asking:_PROGRAM": _hear_no_sign_of_life}
