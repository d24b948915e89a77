"""llama.cpp's own ``/tokenize`` and ``/completion``: they tell token ids, which its OpenAI routes do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.engines.dialects.base import (
    Ask,
    ChatSampling,
    Generation,
    Message,
    Piece,
    Sampling,
    an_object,
    count_of,
    ids_of,
    parsed,
    text_of,
)
from app.engines.dialects.conversations import chat_ask, read_chat, read_chat_piece

#: Seeds are 32 bits wide, and the last one means "another each time".
SEEDS = 2**32 - 1


class LlamaCppDialect:
    name = "llama.cpp"
    #: sequences that are decoded together share their sums, whose rounding then differs: of 24 seeded texts of a tiny
    #: model 21 were others when eight were made at once
    alone_when_seeded = True
    penalises_repeats = True

    def tokenize(self, model: str, text: str) -> Ask:
        return Ask("/tokenize", {"model": model, "content": text, "add_special": True})

    def read_tokens(self, answer: Any) -> tuple[int, ...]:
        return ids_of(an_object(answer, "the answer").get("tokens"), "tokens")

    def generate(self, model: str, prompt: str, sampling: Sampling, *, stream: bool = False) -> Ask:
        body: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "n_predict": sampling.max_tokens,
            "stream": stream,
            "return_tokens": True,
            # what a slot happens to remember of earlier prompts changes the sums, and with them a seeded text
            "cache_prompt": sampling.seed is None,
            # the server's own defaults are not what was asked for
            "temperature": 0.0 if sampling.strategy == "greedy" else sampling.temperature,
            "top_k": sampling.top_k if sampling.strategy == "top_k" else 0,
            "top_p": sampling.top_p if sampling.strategy == "top_p" else 1.0,
            "min_p": 0.0,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed % SEEDS
        return Ask("/completion", body)

    def read_generation(self, answer: Any) -> Generation:
        found = an_object(answer, "the answer")
        ids = ids_of(found.get("tokens"), "tokens")
        return Generation(
            text=text_of(found, "content"),
            token_ids=ids,
            tokens=_count(found, "tokens_predicted"),
            prompt_tokens=_count(found, "tokens_evaluated"),
            finish_reason=_reason(found),
        )

    def read_piece(self, data: str) -> Piece:
        if data.strip() == "[DONE]":
            return Piece(done=True)
        found = parsed(data)
        done = found.get("stop") is True
        return Piece(
            text=text_of(found, "content"),
            token_ids=ids_of(found.get("tokens", []), "tokens"),
            finish_reason=_reason(found) if done else None,
            done=done,
            tokens=_count(found, "tokens_predicted"),
            prompt_tokens=_count(found, "tokens_evaluated"),
        )

    def chat(self, model: str, messages: Sequence[Message], sampling: ChatSampling, *, stream: bool = False) -> Ask:
        # the server's own defaults are not what was asked for
        neutral = {"top_k": 0, "min_p": 0.0}
        return chat_ask(model, messages, sampling, stream=stream, penalty_names=("repeat_penalty",), neutral=neutral)

    def read_chat(self, answer: Any) -> Generation:
        return read_chat(answer)

    def read_chat_piece(self, data: str) -> Piece:
        return read_chat_piece(data)


def _count(found: Mapping[str, Any], field: str) -> int | None:
    return count_of(found.get(field))


def _reason(found: Mapping[str, Any]) -> str:
    return "length" if found.get("stop_type") == "limit" else "stop"
