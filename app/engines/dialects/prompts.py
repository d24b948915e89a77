"""A prompt in OpenAI's API: asked as a chat, or as a text to go on from where the model knows no chats. Pure.

Every engine that makes text has both routes; which of the two works is the model's matter, not the engine's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.engines.dialects.base import Ask, BadAnswer, an_object, count_of, first_choice, parsed, reason_of, text_of

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
#: What engines say of a model that takes no chats: vLLM where its tokenizer has no template, transformers (whose words
#: engines hand on) of the same, and vLLM of a model that does something else (read in vLLM 0.33).
_NO_CHAT = re.compile(
    r"default chat template is no longer allowed|chat_template is not set|does not support chat completions api",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Prompt:
    """A text for a model; what is None is left to the engine and the model."""

    text: str
    system: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """A whole answer. ``usage`` holds OpenAI's three counts as far as they are told, None when none is."""

    text: str
    finish_reason: str | None
    usage: Mapping[str, int] | None


@dataclass(frozen=True)
class Part:
    """One event of a stream; ``done`` marks the last."""

    text: str = ""
    finish_reason: str | None = None
    usage: Mapping[str, int] | None = None
    done: bool = False


def ask(prompt: Prompt, model: str, path: str, *, stream: bool = False) -> Ask:
    """The request to ``path``, which is CHAT or COMPLETIONS; an empty ``model`` is not named."""
    body: dict[str, Any] = {"model": model} if model else {}
    if path == CHAT:
        said = [{"role": "system", "content": prompt.system}] if prompt.system else []
        body["messages"] = [*said, {"role": "user", "content": prompt.text}]
    else:
        body["prompt"] = f"{prompt.system}\n\n{prompt.text}" if prompt.system else prompt.text
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        value = getattr(prompt, name)
        if value is not None:
            body[name] = value
    if prompt.stop:
        body["stop"] = list(prompt.stop)
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Ask(path, body)


def models() -> Ask:
    """The request for what is loaded."""
    return Ask("/v1/models", {}, "GET")


def read_models(answer: Any) -> list[dict[str, Any]]:
    """The parsed answer to ``models``: ``id`` and ``max_model_len`` (None where it is not told) of each.

    Raises BadAnswer.
    """
    data = an_object(answer, "the answer").get("data")
    if not isinstance(data, list):
        raise BadAnswer("'data' is no list")
    found = [an_object(one, "a model") for one in data]
    return [{"id": text_of(one, "id"), "max_model_len": count_of(one.get("max_model_len"))} for one in found]


def knows_no_chats(words: str) -> bool:
    """Whether an engine refused a chat because its model has no way to read one; ``words`` are the engine's."""
    return _NO_CHAT.search(words) is not None


def read(path: str, answer: Any) -> Said:
    """The parsed answer of ``path``. Raises BadAnswer."""
    found = an_object(answer, "the answer")
    choice = first_choice(found)
    if choice is None:
        raise BadAnswer("'choices' is empty")
    text = _content(an_object(choice.get("message"), "'message'")) if path == CHAT else text_of(choice, "text")
    return Said(text, reason_of(choice), _usage(found))


def read_part(path: str, data: str) -> Part:
    """One event's data of a streamed answer of ``path``. Raises BadAnswer, EngineFailed."""
    if data.strip() == "[DONE]":
        return Part(done=True)
    found = parsed(data)
    choice = first_choice(found)
    if choice is None:
        # the event that only tells the usage
        return Part(usage=_usage(found))
    text = _content(an_object(choice.get("delta") or {}, "'delta'")) if path == CHAT else text_of(choice, "text")
    return Part(text, reason_of(choice), _usage(found))


def _content(message: Mapping[str, Any]) -> str:
    # null: all that it said was thought, or a call of a tool
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise BadAnswer("'content' is no text")
    return content or ""


def _usage(found: Mapping[str, Any]) -> Mapping[str, int] | None:
    usage = found.get("usage")
    if not isinstance(usage, Mapping):
        return None
    counts = {name: count_of(usage.get(name)) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    return {name: count for name, count in counts.items() if count is not None} or None
