"""What two ends of a backend say to each other, one JSON object each: the question of a verb and its answer."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from app.domain.lifecycle import Reason
from workers.backends.base import (
    AlreadyLaunched,
    BackendError,
    BackendUnavailable,
    Fingerprint,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    LogPart,
    Observation,
    ProgramMissing,
)

#: Errors that mean the same on both ends.
_ERRORS: dict[str, type[BackendError]] = {
    kind.__name__: kind for kind in (BackendError, BackendUnavailable, LaunchRefused, ProgramMissing, AlreadyLaunched)
}


def dump(message: Mapping[str, Any]) -> bytes:
    """Bytes that JSON cannot hold are written as lone surrogates, and escaped."""
    return json.dumps(message).encode()


def load(data: bytes) -> dict[str, Any]:
    """Raises BackendUnavailable for anything that is not one whole object."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BackendUnavailable(f"what came was no answer: {data[:200].decode(errors='replace')!r}")
    return found


def error_to(error: BackendError) -> dict[str, Any]:
    kind = next(name for name in (one.__name__ for one in type(error).__mro__) if name in _ERRORS)
    return {"error": kind, "message": str(error)}


def error_of(answer: Mapping[str, Any]) -> BackendError:
    return _ERRORS.get(answer["error"], BackendError)(answer.get("message", "it did not say why"))


def launch_to(launch: Launch) -> dict[str, Any]:
    return {field.name: _plain(getattr(launch, field.name)) for field in fields(launch)}


def launch_of(value: Mapping[str, Any]) -> Launch:
    return Launch(**{**value, "argv": tuple(value["argv"]), "gpus": tuple(value["gpus"])})


def handle_to(handle: Handle) -> dict[str, Any]:
    return {"backend": handle.backend, "name": handle.name, "ref": dict(handle.ref)}


def handle_of(value: Mapping[str, Any]) -> Handle:
    return Handle(**value)


def observation_to(seen: Observation) -> dict[str, Any]:
    moments = {name: moment.isoformat() for name, moment in _moments(seen).items()}
    return {**asdict(seen), "started_at": None, "ended_at": None, **moments}


def observation_of(value: Mapping[str, Any]) -> Observation:
    moments = {
        name: datetime.fromisoformat(value[name]) if value[name] else None for name in ("started_at", "ended_at")
    }
    reason = Reason(value["reason"]) if value["reason"] else None
    return Observation(**{**value, **moments, "liveness": Liveness(value["liveness"]), "reason": reason})


def fingerprint_to(seen: Fingerprint) -> dict[str, Any]:
    return asdict(seen)


def fingerprint_of(value: Mapping[str, Any]) -> Fingerprint:
    return Fingerprint(**value)


def part_to(part: LogPart) -> dict[str, Any]:
    return {"data": b64encode(part.data).decode(), "place": part.place, "gap": part.gap}


def part_of(value: Mapping[str, Any]) -> LogPart:
    return LogPart(b64decode(value["data"]), value["place"], value["gap"])


def _moments(seen: Observation) -> dict[str, datetime]:
    found = {"started_at": seen.started_at, "ended_at": seen.ended_at}
    return {name: moment for name, moment in found.items() if moment is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
