"""What every engine that speaks OpenAI's API is asked in diagnostics."""

from __future__ import annotations

from app.engines.base import HttpCheck

_PROMPT = {"model": "{model}", "prompt": "The engine is ready", "max_tokens": 16, "temperature": 0}


def checks(health_path: str = "/health") -> tuple[HttpCheck, ...]:
    """Health, the list of models, one completion whole and one streamed, in this order."""
    return (
        HttpCheck("health", health_path),
        HttpCheck("models", "/v1/models", expect="models"),
        HttpCheck("completion", "/v1/completions", "POST", _PROMPT, "completion"),
        HttpCheck("stream", "/v1/completions", "POST", {**_PROMPT, "stream": True}, "stream"),
    )
