"""What a dialect translates: our few questions into an engine's own requests, and its answers back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Strategy = Literal["greedy", "top_k", "top_p"]


class BadAnswer(Exception):
    """The engine answered with something that its dialect does not have. The message names what was missing."""


class EngineFailed(Exception):
    """The engine broke off a stream with an error of its own, in its words."""


class NotSpoken(Exception):
    """The engine's API has no such request; the message says what does."""


@dataclass(frozen=True)
class Ask:
    """One HTTP request to the engine, its body to be sent as JSON."""

    path: str
    body: Mapping[str, Any]
    method: str = "POST"


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. ``greedy`` is temperature 0, whatever ``temperature`` says; ``top_k`` and ``top_p`` count
    only in the strategy of their name. ``seed`` may be any integer; None: another text each time."""

    max_tokens: int
    strategy: Strategy = "greedy"
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.9
    seed: int | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; the engine joins them by the model's chat template."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class ChatSampling:
    """How an answer in a conversation is chosen. What is None is left to the engine.

    ``repeat_penalty``: 1 is none, more makes tokens that stood there before less likely.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    repeat_penalty: float | None = None


@dataclass(frozen=True)
class Generation:
    """A whole answer. ``token_ids`` is None where the engine does not tell them, as are counts that it does not tell.

    ``tokens`` counts those made; an end token that is no text is among them where the engine counts it.
    """

    text: str
    token_ids: tuple[int, ...] | None
    tokens: int | None
    prompt_tokens: int | None
    finish_reason: str | None


@dataclass(frozen=True)
class Piece:
    """One event of a stream. ``text`` may be empty: a token that is half a character, or the last event.

    ``token_ids`` are those that came with this event, None where the engine does not tell; llama.cpp leaves out the
    ids of tokens whose text it held back to complete a character. ``done`` marks the last event.
    """

    text: str = ""
    token_ids: tuple[int, ...] | None = None
    finish_reason: str | None = None
    done: bool = False
    #: of the whole answer, where this event tells it
    tokens: int | None = None
    prompt_tokens: int | None = None


class Dialect(Protocol):
    """Of one kind of engine; the registry of engines says which (``Engine.dialect``). Keeps no state."""

    #: ``llama.cpp``, ``openai+ids`` (vLLM, SGLang) or ``openai``
    name: str
    #: a batch with a seed is worked on one item after the other, for a text is only the same again when made alone
    alone_when_seeded: bool
    #: whether every engine that it is for knows a penalty of repeats
    penalises_repeats: bool

    def tokenize(self, model: str, text: str) -> Ask:
        """Ask for the tokens of ``text``, start token and all, as a prompt would have them. Raises NotSpoken."""

    def read_tokens(self, answer: Any) -> tuple[int, ...]:
        """The ids in the parsed answer to ``tokenize``. Raises BadAnswer."""

    def generate(self, model: str, prompt: str, sampling: Sampling, *, stream: bool = False) -> Ask:
        """Ask for a continuation of ``prompt``, whole or as server-sent events."""

    def read_generation(self, answer: Any) -> Generation:
        """The parsed answer to ``generate``. Raises BadAnswer."""

    def read_piece(self, data: str) -> Piece:
        """One event's data (what stands behind ``data:``) of a streamed answer. Raises BadAnswer, EngineFailed."""

    def chat(self, model: str, messages: Sequence[Message], sampling: ChatSampling, *, stream: bool = False) -> Ask:
        """Ask for the next turn of a conversation, whole or as server-sent events."""

    def read_chat(self, answer: Any) -> Generation:
        """The parsed answer to ``chat``. Raises BadAnswer."""

    def read_chat_piece(self, data: str) -> Piece:
        """One event's data of a streamed ``chat``. Raises BadAnswer, EngineFailed."""


def parsed(data: str) -> Mapping[str, Any]:
    """The JSON object that ``data`` is. Raises BadAnswer, and EngineFailed when it tells of an error."""
    try:
        value = json.loads(data)
    except ValueError:
        raise BadAnswer(f"an event that is no JSON: {data[:80]!r}") from None
    found = an_object(value, "an event")
    if found.get("error"):
        raise EngineFailed(words_of(found["error"]))
    return found


def an_object(value: Any, what: str) -> Mapping[str, Any]:
    """``value`` if it is an object. Raises BadAnswer."""
    if not isinstance(value, Mapping):
        raise BadAnswer(f"{what} is no object")
    return value


def text_of(answer: Mapping[str, Any], field: str) -> str:
    """The text under ``field``. Raises BadAnswer."""
    found = answer.get(field)
    if not isinstance(found, str):
        raise BadAnswer(f"{field!r} is no text")
    return found


def ids_of(value: Any, field: str) -> tuple[int, ...]:
    """Token ids. Raises BadAnswer."""
    if not isinstance(value, list) or any(type(item) is not int for item in value):
        raise BadAnswer(f"{field!r} is no list of token ids")
    return tuple(value)


def count_of(value: Any) -> int | None:
    """A count where one was told."""
    return value if type(value) is int and value >= 0 else None


def first_choice(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first of an answer's choices; None where there is none, as in an event of the usage. Raises BadAnswer."""
    choices = found.get("choices")
    if not isinstance(choices, list):
        raise BadAnswer("'choices' is missing")
    return an_object(choices[0], "a choice") if choices else None


def reason_of(choice: Mapping[str, Any]) -> str | None:
    """Why the text ended, once it has."""
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) else None


def words_of(error: Any) -> str:
    """What an error of an engine says, in whichever form: ``{"message": ...}`` or bare text."""
    if isinstance(error, Mapping):
        error = error.get("message") or json.dumps(dict(error))
    return str(error)[:500]
