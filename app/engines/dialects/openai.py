"""OpenAI's ``/v1/completions``, with the additions of vLLM and SGLang where the engine has them.

Both take ``return_token_ids``, and answer ``token_ids`` beside each choice, and both have ``/tokenize`` (read in vLLM
0.11 and 0.33, SGLang 0.5.23). A server that only speaks OpenAI's API tells neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.engines.dialects.base import (
    Ask,
    BadAnswer,
    ChatSampling,
    Generation,
    Message,
    NotSpoken,
    Piece,
    Sampling,
    an_object,
    first_choice,
    ids_of,
    parsed,
    reason_of,
    text_of,
)
from app.engines.dialects.conversations import chat_ask, read_chat, read_chat_piece, used

#: Seeds are signed and 64 bits wide.
SEEDS = 2**63


class OpenAIDialect:
    """``tells_ids``: it has those additions."""

    alone_when_seeded = False

    def __init__(self, *, tells_ids: bool) -> None:
        self.tells_ids = tells_ids
        self.penalises_repeats = tells_ids
        self.name = "openai+ids" if tells_ids else "openai"

    def tokenize(self, model: str, text: str) -> Ask:
        if not self.tells_ids:
            raise NotSpoken("OpenAI's API has no way to ask for tokens; llama.cpp, vLLM and SGLang have")
        return Ask("/tokenize", {"model": model, "prompt": text, "add_special_tokens": True})

    def read_tokens(self, answer: Any) -> tuple[int, ...]:
        return ids_of(an_object(answer, "the answer").get("tokens"), "tokens")

    def generate(self, model: str, prompt: str, sampling: Sampling, *, stream: bool = False) -> Ask:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "max_tokens": sampling.max_tokens,
            "temperature": 0.0 if sampling.strategy == "greedy" else sampling.temperature,
            "top_p": sampling.top_p if sampling.strategy == "top_p" else 1.0,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed % SEEDS
        if sampling.strategy == "top_k":
            # not a word of OpenAI's own: who does not know it says so
            body["top_k"] = sampling.top_k
        if self.tells_ids:
            # a model may come with defaults of its own for all of these
            body = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "return_token_ids": True, **body}
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return Ask("/v1/completions", body)

    def read_generation(self, answer: Any) -> Generation:
        found = an_object(answer, "the answer")
        choice = first_choice(found)
        if choice is None:
            raise BadAnswer("'choices' is empty")
        ids = self._ids(choice)
        if self.tells_ids and ids is None:
            raise BadAnswer("'token_ids' is missing; the engine is too old to know return_token_ids")
        return Generation(
            text=text_of(choice, "text"),
            token_ids=ids,
            tokens=used(found, "completion_tokens"),
            prompt_tokens=used(found, "prompt_tokens"),
            finish_reason=reason_of(choice),
        )

    def read_piece(self, data: str) -> Piece:
        if data.strip() == "[DONE]":
            return Piece(done=True)
        found = parsed(data)
        choice = first_choice(found)
        tokens, prompt_tokens = used(found, "completion_tokens"), used(found, "prompt_tokens")
        if choice is None:
            # the event that only tells the usage
            return Piece(tokens=tokens, prompt_tokens=prompt_tokens)
        return Piece(
            text=text_of(choice, "text"),
            token_ids=self._ids(choice),
            finish_reason=reason_of(choice),
            tokens=tokens,
            prompt_tokens=prompt_tokens,
        )

    def chat(self, model: str, messages: Sequence[Message], sampling: ChatSampling, *, stream: bool = False) -> Ask:
        # what vLLM and its like call it, and llama.cpp: one of several kinds behind a model may be either. OpenAI's own
        # servers know neither, and say so
        names = ["repetition_penalty"] if self.tells_ids else ["repetition_penalty", "repeat_penalty"]
        neutral = {"top_k": -1, "min_p": 0.0} if self.tells_ids else {}
        return chat_ask(model, messages, sampling, stream=stream, penalty_names=names, neutral=neutral)

    def read_chat(self, answer: Any) -> Generation:
        return read_chat(answer)

    def read_chat_piece(self, data: str) -> Piece:
        return read_chat_piece(data)

    def _ids(self, choice: Mapping[str, Any]) -> tuple[int, ...] | None:
        if not self.tells_ids or choice.get("token_ids") is None:
            return None
        return ids_of(choice["token_ids"], "token_ids")
