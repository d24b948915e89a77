"""What each dialect asks, and how it reads what engines really answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.engines.dialects.base import (
    BadAnswer,
    ChatSampling,
    Dialect,
    EngineFailed,
    Message,
    NotSpoken,
    Piece,
    Sampling,
)
from app.engines.dialects.llama_cpp import LlamaCppDialect
from app.engines.dialects.openai import OpenAIDialect

LLAMA, IDS, PLAIN = LlamaCppDialect(), OpenAIDialect(tells_ids=True), OpenAIDialect(tells_ids=False)
ALL: list[Dialect] = [LLAMA, IDS, PLAIN]
SAMPLING = Sampling(max_tokens=5, strategy="top_p", temperature=0.7, top_k=9, top_p=0.8)


def _body(dialect: Dialect, **more: Any) -> dict[str, Any]:
    return dict(dialect.generate("m", "Once", replace(SAMPLING, **more)).body)


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_greedy_is_temperature_0_whatever_else_is_said(dialect: Dialect) -> None:
    assert _body(dialect, strategy="greedy", temperature=1.5)["temperature"] == 0.0
    assert _body(dialect)["temperature"] == 0.7


@pytest.mark.parametrize("dialect", [LLAMA, IDS], ids=lambda it: it.name)
def test_only_the_strategy_that_was_asked_for_counts(dialect: Dialect) -> None:
    off = 0 if dialect is LLAMA else -1
    by_p, by_k = _body(dialect), _body(dialect, strategy="top_k")
    assert (by_p["top_k"], by_p["top_p"]) == (off, 0.8)
    assert (by_k["top_k"], by_k["top_p"]) == (9, 1.0)
    assert by_p["min_p"] == by_k["min_p"] == 0.0


def test_who_only_speaks_openai_is_asked_nothing_else() -> None:
    known = {"model", "prompt", "max_tokens", "temperature", "top_p", "seed", "stream", "stream_options"}
    assert set(PLAIN.generate("m", "x", replace(SAMPLING, seed=1), stream=True).body) <= known
    with pytest.raises(NotSpoken, match="no way to ask for tokens"):
        PLAIN.tokenize("m", "x")


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1, 2**40, 2**64, -1])
def test_any_integer_is_a_seed_that_repeats(seed: int) -> None:
    # for llama.cpp 2**32 - 1, and what is no uint32, means: another text each time
    assert 0 <= _body(LLAMA, seed=seed)["seed"] < 2**32 - 1
    assert 0 <= _body(IDS, seed=seed)["seed"] < 2**63
    assert "seed" not in _body(LLAMA)
    assert _body(LLAMA, seed=seed)["cache_prompt"] is False


def test_llama_cpp_is_read_whole_and_in_pieces() -> None:
    whole = {"content": " a b", "tokens": [3, 4], "tokens_predicted": 2, "tokens_evaluated": 7, "stop_type": "limit"}
    found = LLAMA.read_generation(whole)
    assert (found.text, found.token_ids, found.tokens, found.prompt_tokens, found.finish_reason) == (
        " a b", (3, 4), 2, 7, "length",
    )  # fmt: skip
    piece = LLAMA.read_piece('{"content": " a", "tokens": [3], "stop": false, "tokens_predicted": 1}')
    assert (piece.text, piece.token_ids, piece.done) == (" a", (3,), False)
    last = LLAMA.read_piece('{"content": "", "tokens": [], "stop": true, "stop_type": "eos", "tokens_predicted": 2}')
    assert (last.done, last.finish_reason, last.tokens) == (True, "stop", 2)


def test_vllm_is_read_whole_and_in_pieces() -> None:
    choice = {"index": 0, "text": " a b", "token_ids": [3, 4], "finish_reason": "length"}
    found = IDS.read_generation({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    assert (found.text, found.token_ids, found.tokens, found.prompt_tokens) == (" a b", (3, 4), 2, 7)
    event = {"choices": [{**choice, "text": " a", "token_ids": [3], "finish_reason": None}]}
    assert IDS.read_piece(json.dumps(event)) == Piece(text=" a", token_ids=(3,))
    usage = IDS.read_piece('{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}')
    assert usage == Piece(tokens=2, prompt_tokens=7)
    assert IDS.read_piece("[DONE]").done


def test_what_a_plain_server_does_not_tell_is_none() -> None:
    found = PLAIN.read_generation({"choices": [{"text": "x", "token_ids": [1]}]})
    assert (found.token_ids, found.tokens, found.prompt_tokens, found.finish_reason) == (None, None, None, None)


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
@pytest.mark.parametrize("answer", [None, [], "x", {}, {"choices": [3]}, {"choices": []}, {"content": 3, "tokens": []}])
def test_an_answer_of_another_kind_is_a_bad_answer(dialect: Dialect, answer: Any) -> None:
    with pytest.raises(BadAnswer):
        dialect.read_generation(answer)
    with pytest.raises(BadAnswer):
        dialect.read_tokens(answer if answer != {"content": 3, "tokens": []} else {"tokens": [True]})


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_an_event_that_is_no_event_and_one_that_tells_of_an_error(dialect: Dialect) -> None:
    for data in ("", "{", "[]", '"x"', "{}"):
        with pytest.raises(BadAnswer):
            dialect.read_piece(data)
    with pytest.raises(EngineFailed, match="out of blocks"):
        dialect.read_piece('{"error": {"message": "out of blocks", "code": 500}}')
    with pytest.raises(EngineFailed, match="plain words"):
        dialect.read_piece('{"error": "plain words"}')


def test_ids_that_were_asked_for_and_did_not_come_are_a_bad_answer() -> None:
    with pytest.raises(BadAnswer, match="too old"):
        IDS.read_generation({"choices": [{"text": "x"}]})


CHAT = ChatSampling(max_tokens=5, temperature=0.7, top_p=0.8, repeat_penalty=1.3)
TALK = [Message("system", "Be brief."), Message("user", "Hello")]


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_a_chat_is_asked_with_all_that_was_said(dialect: Dialect) -> None:
    ask = dialect.chat("m", TALK, CHAT, stream=True)
    assert ask.path == "/v1/chat/completions"
    assert ask.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
    ]
    assert {name: ask.body[name] for name in ("model", "max_tokens", "temperature", "top_p", "stream")} == {
        "model": "m", "max_tokens": 5, "temperature": 0.7, "top_p": 0.8, "stream": True,
    }  # fmt: skip


def test_each_engine_hears_of_the_penalty_by_the_name_it_knows() -> None:
    def named(dialect: Dialect, sampling: ChatSampling) -> dict[str, Any]:
        return {name: value for name, value in dialect.chat("m", TALK, sampling).body.items() if "penalty" in name}

    assert named(LLAMA, CHAT) == {"repeat_penalty": 1.3}
    assert named(IDS, CHAT) == {"repetition_penalty": 1.3}
    assert named(PLAIN, CHAT) == {"repetition_penalty": 1.3, "repeat_penalty": 1.3}
    for dialect in ALL:
        assert named(dialect, replace(CHAT, repeat_penalty=None)) == {}
    assert [dialect.penalises_repeats for dialect in ALL] == [True, True, False]


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_what_a_chat_leaves_out_is_left_to_the_engine(dialect: Dialect) -> None:
    assert set(dialect.chat("m", TALK, ChatSampling()).body) == {"model", "messages"}


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_a_chat_is_read_whole_and_in_pieces(dialect: Dialect) -> None:
    whole = {
        "choices": [{"message": {"role": "assistant", "content": " a b"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    found = dialect.read_chat(whole)
    assert (found.text, found.tokens, found.prompt_tokens, found.finish_reason) == (" a b", 2, 7, "length")
    piece = dialect.read_chat_piece('{"choices": [{"delta": {"content": " a"}, "finish_reason": null}]}')
    assert piece == Piece(text=" a")
    for silent in ('{"role": "assistant", "content": null}', '{"reasoning_content": "hm"}', "{}"):
        assert dialect.read_chat_piece(f'{{"choices": [{{"delta": {silent}}}]}}') == Piece()
    last = dialect.read_chat_piece('{"choices": [{"delta": {}, "finish_reason": "stop"}]}')
    assert (last.finish_reason, last.done) == ("stop", False)
    usage = dialect.read_chat_piece('{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}')
    assert usage == Piece(tokens=2, prompt_tokens=7)
    assert dialect.read_chat_piece("[DONE]").done


@pytest.mark.parametrize("dialect", ALL, ids=lambda it: it.name)
def test_a_chat_of_another_kind_is_a_bad_answer(dialect: Dialect) -> None:
    for answer in (None, [], {}, {"choices": []}, {"choices": [{}]}, {"choices": [{"message": {"content": 3}}]}):
        with pytest.raises(BadAnswer):
            dialect.read_chat(answer)
    for data in ("", "{", "[]", "{}", '{"choices": [{}]}', '{"choices": [{"delta": {"content": 3}}]}'):
        with pytest.raises(BadAnswer):
            dialect.read_chat_piece(data)
    with pytest.raises(EngineFailed, match="out of blocks"):
        dialect.read_chat_piece('{"error": {"message": "out of blocks", "code": 500}}')
