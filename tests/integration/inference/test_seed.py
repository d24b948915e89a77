"""Every request of the model API's contract, against llama.cpp."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.inference.conftest import Served, events

SAMPLING = {"temperature": 0.8, "strategy": "top_p", "top_k": 50, "top_p": 0.9, "seed": 42}


def test_models(two_models: Served) -> None:
    models = {model["id"]: model for model in two_models.get("/models").get_json()["models"]}
    assert set(models) == {"llama-7b", "mistral-7b"}
    for name, model in models.items():
        assert set(model) == {"id", "name", "description", "format", "loaded"}
        assert (model["name"], model["format"], model["loaded"]) == (name, "GGUF", True)
        assert model["description"]


def test_a_model_without_a_ready_replica_is_not_loaded(two_models: Served) -> None:
    two_models.row("sleepy", "mock", state="pending")
    (two_models.folder / "file.gguf").write_bytes((two_models.folder / "llama-7b.gguf").read_bytes())
    loaded = {model["id"]: model["loaded"] for model in two_models.get("/models").get_json()["models"]}
    assert loaded == {"llama-7b": True, "mistral-7b": True, "sleepy": False, "file": False}


def test_tokenize(two_models: Served) -> None:
    answer = two_models.post("/tokenize", {"text": "Hello, world!", "model_id": "llama-7b"}).get_json()
    assert answer["num_tokens"] == len(answer["token_ids"]) > 4
    assert all(isinstance(one, int) for one in answer["token_ids"])


def test_generate(two_models: Served) -> None:
    body = {"prompt": "Once upon a time", "max_tokens": 50, **SAMPLING, "model_id": "mistral-7b"}
    answer = two_models.post("/generate", body)
    made = answer.get_json()
    assert set(made) == {"token_ids", "text", "num_generated", "finish_reason"}
    assert made["num_generated"] == len(made["token_ids"]) == 50
    assert made["text"]
    assert answer.headers["X-Hostler-Replica"].startswith("replica1-")
    assert two_models.post("/generate", body).get_json() == made, "the same seed is the same text"
    other = two_models.post("/generate", body | {"seed": 43}).get_json()
    assert other["token_ids"] != made["token_ids"]


def test_stream_generate(two_models: Served) -> None:
    body = {"prompt": "Tell me a story", "max_tokens": 100, **SAMPLING, "strategy": "greedy", "model_id": "llama-7b"}
    told = events(two_models.post("/stream/generate", body))
    assert told[-1] == {"done": True}
    tokens = told[:-1]
    assert all(set(one) == {"token"} and one["token"] for one in tokens)
    assert 10 < len(tokens) <= 100
    whole = two_models.post("/generate", body).get_json()
    # llama.cpp ends a stream without the half character that it holds back, and a whole text with a sign for it
    told_text = "".join(one["token"] for one in tokens)
    assert whole["text"].startswith(told_text)
    assert set(whole["text"].removeprefix(told_text)) <= {"\ufffd"}


def test_batches_keep_order(two_models: Served) -> None:
    texts = ["First text", "Second text", "Third text"]
    results = two_models.post("/batch/tokenize", {"texts": texts, "model_id": "llama-7b"}).get_json()["results"]
    alone = [two_models.post("/tokenize", {"text": one, "model_id": "llama-7b"}).get_json() for one in texts]
    assert results == alone
    sampling = {"max_tokens": 10, **SAMPLING, "strategy": "greedy", "model_id": "llama-7b"}
    prompts = [f"{number} is a number" for number in range(20)]
    results = two_models.post("/batch/generate", {"prompts": prompts, **sampling}).get_json()["results"]
    alone = [two_models.post("/generate", {"prompt": one, **sampling}).get_json() for one in prompts]
    assert results == alone, "a seeded text does not depend on what else is in its batch"
    unseeded = {name: value for name, value in sampling.items() if name != "seed"}
    results = two_models.post("/batch/generate", {"prompts": prompts, **unseeded}).get_json()["results"]
    assert [one["num_generated"] > 0 for one in results] == [True] * 20


@pytest.mark.parametrize(
    "other",
    [{"temperature": 0.0, "strategy": "top_p"}, {"temperature": 0, "strategy": "top_k"}, {"temperature": 1.7}],
    ids=["top_p", "top_k", "hot"],
)
def test_greedy_is_temperature_0(two_models: Served, other: dict[str, Any]) -> None:
    body = {"prompt": "the engine", "max_tokens": 20, "model_id": "llama-7b"}
    greedy = two_models.post("/generate", body | {"strategy": "greedy"}).get_json()
    assert two_models.post("/generate", body | other).get_json()["token_ids"] == greedy["token_ids"]


def test_one_likeliest_token_is_greedy(two_models: Served) -> None:
    body = {"prompt": "the engine", "max_tokens": 20, "model_id": "llama-7b"}
    greedy = two_models.post("/generate", body).get_json()["token_ids"]
    for only in ({"strategy": "top_k", "top_k": 1}, {"strategy": "top_p", "top_p": 0.0001}):
        assert two_models.post("/generate", body | only | {"temperature": 2}).get_json()["token_ids"] == greedy
    # the others' numbers do not count
    free = {"strategy": "top_k", "top_k": 200, "top_p": 0.0001, "temperature": 5, "seed": 1}
    assert two_models.post("/generate", body | free).get_json()["token_ids"] != greedy


def test_unknown_model(two_models: Served) -> None:
    answer = two_models.post("/generate", {"prompt": "Hello", "max_tokens": 10, "model_id": "does-not-exist"})
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert answer.get_json(force=True)["error"] == "Model 'does-not-exist' not found"


@pytest.mark.parametrize(
    "path, body, field",
    [
        ("/generate", {"prompt": ""}, "prompt"),
        ("/stream/generate", {"prompt": ""}, "prompt"),
        ("/batch/generate", {"prompts": []}, "prompts"),
        ("/batch/generate", {"prompts": ["a", ""]}, "prompts.1"),
        ("/batch/tokenize", {"texts": []}, "texts"),
        ("/generate", {"prompt": "a", "strategy": "beam"}, "strategy"),
        ("/generate", {"prompt": "a", "strategy": None}, "strategy"),
        ("/batch/generate", {"prompts": ["a"], "strategy": ["greedy"]}, "strategy"),
        ("/generate", {}, "prompt"),
        ("/batch/tokenize", {}, "texts"),
    ],
)
def test_what_is_400(two_models: Served, path: str, body: dict[str, Any], field: str) -> None:
    answer = two_models.post(path, body | {"model_id": "llama-7b"})
    assert answer.status_code == 400, answer.get_data(as_text=True)
    assert field in answer.get_json(force=True)["errors"]
