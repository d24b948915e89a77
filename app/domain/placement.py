"""What a replica asks of the place where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gpus_wanted(spec: Mapping[str, Any]) -> int:
    """GPUs that ``resources.gpus`` (or ``gpu``) asks for; 0 is CPU only. The request was checked when it came."""
    resources = spec.get("resources") or {}
    return int(resources.get("gpus", resources.get("gpu")) or 0)
