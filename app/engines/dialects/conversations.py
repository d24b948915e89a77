"""OpenAI's ``/v1/chat/completions``, which every engine that chats has; how each names what OpenAI does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.engines.dialects.base import (
    Ask,
    BadAnswer,
    ChatSampling,
    Generation,
    Message,
    Piece,
    an_object,
    count_of,
    first_choice,
    parsed,
    reason_of,
    text_of,
)

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def chat_ask(
    model: str,
    messages: Sequence[Message],
    sampling: ChatSampling,
    *,
    stream: bool,
    penalty_names: Sequence[str],
    neutral: Mapping[str, Any],
) -> Ask:
    """``penalty_names``: what the engine calls the penalty of repeats.

    ``neutral`` turns off the engine's other ways to choose, where the request says how to (``top_p``).
    """
    asked = {name: getattr(sampling, name) for name in ("max_tokens", "temperature", "top_p")}
    if sampling.repeat_penalty is not None:
        asked |= dict.fromkeys(penalty_names, sampling.repeat_penalty)
    body: dict[str, Any] = {
        # of a service whose replicas change from one model to another, each is asked for its own
        **({"model": model} if model else {}),
        "messages": [{"role": one.role, "content": one.content} for one in messages],
        **(neutral if sampling.top_p is not None else {}),
        **{name: value for name, value in asked.items() if value is not None},
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Ask(CHAT, body)


def read_chat(answer: Any) -> Generation:
    """A whole answer. Raises BadAnswer."""
    found = an_object(answer, "the answer")
    choice = first_choice(found)
    if choice is None:
        raise BadAnswer("'choices' is empty")
    message = an_object(choice.get("message"), "'message'")
    return Generation(
        # a model that only thought, or called a tool, said nothing
        text=text_of(message, "content") if message.get("content") is not None else "",
        token_ids=None,
        tokens=used(found, "completion_tokens"),
        prompt_tokens=used(found, "prompt_tokens"),
        finish_reason=reason_of(choice),
    )


def as_text(ask: Ask) -> Ask:
    """A conversation as a text to go on from, for a model that has no template for one."""
    body = {name: value for name, value in ask.body.items() if name != "messages"}
    return Ask(COMPLETIONS, {**body, "prompt": "\n\n".join(one["content"] for one in ask.body["messages"])})


def read_chat_piece(data: str) -> Piece:
    """One event of a chat. Raises BadAnswer, EngineFailed."""
    return _read_piece(data, lambda choice: an_object(choice.get("delta"), "'delta'").get("content"))


def read_text_piece(data: str) -> Piece:
    """One event of what was asked ``as_text``. Raises BadAnswer, EngineFailed."""
    return _read_piece(data, lambda choice: choice.get("text"))


def _read_piece(data: str, text_in: Callable[[Mapping[str, Any]], Any]) -> Piece:
    if data.strip() == "[DONE]":
        return Piece(done=True)
    found = parsed(data)
    choice = first_choice(found)
    tokens, prompt_tokens = used(found, "completion_tokens"), used(found, "prompt_tokens")
    if choice is None:
        return Piece(tokens=tokens, prompt_tokens=prompt_tokens)
    text = text_in(choice)
    if text is not None and not isinstance(text, str):
        raise BadAnswer("a piece of text is none")
    return Piece(text=text or "", finish_reason=reason_of(choice), tokens=tokens, prompt_tokens=prompt_tokens)


def used(found: Mapping[str, Any], field: str) -> int | None:
    """A count of the answer's usage, where it is told."""
    usage = found.get("usage")
    return count_of(usage.get(field)) if isinstance(usage, Mapping) else None
