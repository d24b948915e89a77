"""What every engine that speaks OpenAI's API is asked in diagnostics."""

from __future__ import annotations

from app.engines.base import HttpCheck

_PROMPT = {"model": "{model}", "prompt": "The engine is ready", "max_tokens": 16, "temperature": 0}

#: One token, of the shortest prompt there is.
ONE_TOKEN = HttpCheck(
    "one token",
    "/v1/completions",
    "POST",
    {"model": "{model}", "prompt": "a", "max_tokens": 1, "temperature": 0},
    "completion",
)
ONE_EMBEDDING = HttpCheck("one embedding", "/v1/embeddings", "POST", {"model": "{model}", "input": "a"}, "json")


def checks(health_path: str = "/health") -> tuple[HttpCheck, ...]:
    """Health, the list of models, one completion whole and one streamed, in this order."""
    return (
        HttpCheck("health", health_path),
        HttpCheck("models", "/v1/models", expect="models"),
        HttpCheck("completion", "/v1/completions", "POST", _PROMPT, "completion"),
        HttpCheck("stream", "/v1/completions", "POST", {**_PROMPT, "stream": True}, "stream"),
    )
