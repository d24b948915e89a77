"""A prompt as OpenAI's API has it, and what engines answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.engines.dialects import prompts
from app.engines.dialects.base import BadAnswer, EngineFailed
from app.engines.dialects.prompts import CHAT, COMPLETIONS, Part, Prompt, Said
from app.engines.vllm_architectures import DROPPED, MULTIMODAL, POOLING, TEXT_GENERATION
from app.engines.vllm_models import EXAMPLES, judge

WHOLE = Prompt("Hello", "Be brief", max_tokens=5, temperature=0.0, top_p=0.9, seed=0, stop=("x",))


def test_what_is_left_out_is_not_sent() -> None:
    assert prompts.ask(Prompt("Hello"), "m", COMPLETIONS).body == {"model": "m", "prompt": "Hello"}
    chat = prompts.ask(Prompt("Hello"), "m", CHAT)
    assert (chat.path, chat.body) == (CHAT, {"model": "m", "messages": [{"role": "user", "content": "Hello"}]})


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_everything_is_sent(path: str) -> None:
    body = prompts.ask(WHOLE, "m", path, stream=True).body
    assert {name: body[name] for name in ("max_tokens", "temperature", "top_p", "seed", "stop", "stream")} == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 0,
        "stop": ["x"],
        "stream": True,
    }
    assert "Be brief" in json.dumps(body)


@pytest.mark.parametrize(
    "words, known",
    [
        ("As of transformers v4.44, default chat template is no longer allowed, so you must provide one", True),
        ("Cannot use chat template functions because tokenizer.chat_template is not set and no template was", True),
        ("The model does not support Chat Completions API", True),
        ("'max_tokens' is too large: 5000", False),
        ("chat template: unexpected end of input", False),
        ("", False),
    ],
)
def test_who_knows_no_chats(words: str, known: bool) -> None:
    assert prompts.knows_no_chats(words) is known


def test_whole_answers() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "prompt_tokens_details": None}
    chat = {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
    counts = {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert prompts.read(CHAT, chat) == Said("Hi", "stop", counts)
    assert prompts.read(CHAT, {"choices": [{"message": {"content": None}}]}) == Said("", None, None)
    assert prompts.read(COMPLETIONS, {"choices": [{"text": "Hi"}], "usage": 5}) == Said("Hi", None, None)


@pytest.mark.parametrize(
    "answer",
    [
        5,
        {},
        {"choices": []},
        {"choices": [5]},
        {"choices": [{}]},
        {"choices": [{"message": {"content": 5}, "text": 5}]},
    ],
)
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_bad_answers(path: str, answer: Any) -> None:
    with pytest.raises(BadAnswer):
        prompts.read(path, answer)


def test_parts() -> None:
    delta = json.dumps({"choices": [{"delta": {"content": "Hi"}, "finish_reason": None}]})
    assert prompts.read_part(CHAT, delta) == Part("Hi")
    assert prompts.read_part(CHAT, json.dumps({"choices": [{"delta": {"role": "assistant"}}]})) == Part()
    end = json.dumps({"choices": [], "usage": {"completion_tokens": 2}})
    assert prompts.read_part(COMPLETIONS, end) == Part(usage={"completion_tokens": 2})
    assert prompts.read_part(COMPLETIONS, "[DONE]") == Part(done=True)
    with pytest.raises(EngineFailed):
        prompts.read_part(CHAT, json.dumps({"error": {"message": "out of memory"}}))
    for bad in ("nonsense", "5", "{}"):
        with pytest.raises(BadAnswer):
            prompts.read_part(CHAT, bad)


def test_an_architecture_is_filed_once() -> None:
    kinds = (TEXT_GENERATION, MULTIMODAL, POOLING, frozenset(DROPPED))
    assert sum(map(len, kinds)) == len(frozenset().union(*kinds))
    assert {architecture for _, _, architecture in EXAMPLES} <= TEXT_GENERATION | MULTIMODAL | POOLING


def test_verdicts() -> None:
    assert judge(["Unheard", "LlamaForCausalLM"]).compatible is True
    assert judge(["LlamaForCausalLM"]).task == "text-generation"
    assert judge([]).compatible is False
    assert judge([], hidden=True).compatible is None
    assert judge(["Unheard"], hidden=True).compatible is False
