"""Run an engine's diagnostics against one replica: each check a real request, measured, all within one timeout."""

from __future__ import annotations

import http.client
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from app.engines.base import Engine, HttpCheck
from workers.probes.request import answered, filled

#: An answer to a small prompt is never this large; more is cut off and fails.
_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_DETAIL_CHARS = 300


def run_diagnostics(
    engine: Engine, config: Mapping[str, Any], model_name: str, base_url: str, engine_key: str, timeout_s: float
) -> dict[str, Any]:
    """Ask everything ``engine.diagnostics(config)`` names, in order, for at most ``timeout_s`` seconds in all.

    Returns ``{"passed", "checks": [{name, ok, status, latency_ms, detail, ttft_ms?, tokens_per_s?}], "started_at",
    "duration_s"}``, JSON-able. A check that finds no time left fails without being asked. Never raises for what the
    replica does. The key goes only to engines that check one.
    """
    started_at, begun = datetime.now(UTC), time.monotonic()
    deadline = begun + timeout_s
    key = engine_key if engine.checks_key else ""
    results = [run_check(check, base_url, model_name, key, deadline) for check in engine.diagnostics(config)]
    return {
        "passed": all(result["ok"] for result in results),
        "checks": results,
        "started_at": started_at.isoformat(),
        "duration_s": round(time.monotonic() - begun, 3),
    }


@dataclass
class _Findings:
    """What one check found so far."""

    status: int | None = None
    detail: str = ""
    measured: dict[str, float] = field(default_factory=dict)


class _Failed(Exception):
    """The answer is not what the check expects."""


def run_check(check: HttpCheck, base_url: str, model_name: str, key: str, deadline: float) -> dict[str, Any]:
    """Ask once, until the monotonic ``deadline``: ``{name, ok, status, latency_ms, detail, ttft_ms?, tokens_per_s?}``.

    ``status`` is None without an answer. Never raises for what the replica does.
    """
    begun, found, ok = time.monotonic(), _Findings(), False
    if begun >= deadline:
        found.detail = "no time left"
    else:
        try:
            _ask(check, base_url, model_name, key, deadline, found)
            ok = True
        except _Failed as problem:
            # cut off at the deadline, it only looks like a bad answer
            found.detail = "no answer in time" if time.monotonic() >= deadline else str(problem)
        except (OSError, http.client.HTTPException, ValueError) as error:
            found.detail = _in_words(error, time.monotonic() >= deadline)
    return {
        "name": check.name,
        "ok": ok,
        "status": found.status,
        "latency_ms": round((time.monotonic() - begun) * 1000, 2),
        **found.measured,
        "detail": found.detail[:_DETAIL_CHARS],
    }


def _ask(check: HttpCheck, base_url: str, model_name: str, key: str, deadline: float, found: _Findings) -> None:
    begun = time.monotonic()
    body = None if check.body is None else filled(check.body, model_name)
    with answered(base_url, check.method, check.path, key=key, deadline=deadline, body=body) as answer:
        found.status = answer.status
        if not 200 <= answer.status < 300:
            raise _Failed(f"HTTP {answer.status}: {_excerpt(answer.read(_DETAIL_CHARS))}")
        if check.expect == "stream":
            _read_stream(answer, begun, found)
        else:
            _check_whole(check.expect, _read_whole(answer), begun, found)


def _read_whole(answer: http.client.HTTPResponse) -> bytes:
    data = answer.read(_MAX_ANSWER_BYTES + 1)
    if len(data) > _MAX_ANSWER_BYTES:
        raise _Failed(f"the answer is larger than {_MAX_ANSWER_BYTES} bytes")
    return data


def _check_whole(expect: str, data: bytes, begun: float, found: _Findings) -> None:
    if expect == "status":
        return
    value = _parsed(data)
    if expect == "models":
        models = value.get("data") if isinstance(value, dict) else None
        if not isinstance(models, list) or not models:
            raise _Failed("the list of models is empty")
    elif expect == "completion":
        took_s = time.monotonic() - begun
        if not isinstance(value, dict) or not value.get("choices"):
            raise _Failed("the completion holds no choices")
        usage = value.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if isinstance(tokens, int) and took_s > 0:
            found.measured["tokens_per_s"] = round(tokens / took_s, 2)
    elif expect != "json":
        raise _Failed(f"this check expects {expect!r}, which nobody knows how to judge")


def _read_stream(answer: http.client.HTTPResponse, begun: float, found: _Findings) -> None:
    """Count the events that carry a choice: one token each, as engines send them."""
    times = []
    finished = False
    for event in _events(answer):
        if event == "[DONE]":
            finished = True
            break
        value = _parsed(event.encode())
        if not isinstance(value, dict) or "error" in value:
            raise _Failed(f"the stream holds an error: {_excerpt(event.encode())}")
        if any(_carries_text(choice) for choice in value.get("choices") or ()):
            times.append(time.monotonic())
    if not times:
        raise _Failed("the stream ended without a token")
    if not finished:
        raise _Failed("the stream broke off after its first tokens")
    found.measured["ttft_ms"] = round((times[0] - begun) * 1000, 2)
    whole_s = times[-1] - times[0] if len(times) > 1 else times[0] - begun
    counted = len(times) - 1 if len(times) > 1 else 1
    rate = counted / max(whole_s, 1e-6)
    found.measured["tokens_per_s"] = round(rate, 2) if math.isfinite(rate) else 0.0


def _events(answer: http.client.HTTPResponse) -> Iterator[str]:
    size = 0
    for line in iter(lambda: answer.readline(_MAX_ANSWER_BYTES), b""):
        size += len(line)
        if size > _MAX_ANSWER_BYTES:
            raise _Failed(f"the stream is larger than {_MAX_ANSWER_BYTES} bytes")
        if line.startswith(b"data:"):
            yield line[5:].strip().decode("utf-8", "replace")


def _carries_text(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    return choice.get("finish_reason") is None and (
        "text" in choice or (isinstance(delta, dict) and "content" in delta)
    )


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise _Failed(f"the answer is not JSON: {_excerpt(data)}") from None


def _excerpt(data: bytes) -> str:
    return " ".join(data[:_DETAIL_CHARS].decode("utf-8", "replace").split())


def _in_words(error: Exception, out_of_time: bool) -> str:
    if out_of_time or isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed without an answer"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"the answer is not HTTP: {error}"
