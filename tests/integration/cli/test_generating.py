"""Asking models from the command line and from Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from hostler import AsyncClient, Client
from hostler.errors import ApiError, NotFound, Unreachable
from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub, problem, sse

MADE = {"text": " there was", "token_ids": [3, 4], "num_generated": 2, "finish_reason": "length"}


def event(**data: Any) -> str:
    return f"data: {json.dumps(data)}\n\n"


def test_generate_shows_tokens_as_they_come(stub: Stub, run: Run) -> None:
    stub.on("POST", "/stream/generate", sse(event(token=" there"), event(token=" was\x1b[31m"), event(done=True)))
    result = run("generate", "Once", "-m", "tiny", "--max-tokens", "2", "--strategy", "top_p", "--seed", "7")
    assert (result.stdout, result.exit_code) == (" there was\n", 0)
    assert stub.asked[0].body == {
        "prompt": "Once",
        "model_id": "tiny",
        "max_tokens": 2,
        "strategy": "top_p",
        "seed": 7,
    }


def test_generate_as_json_is_the_apis_body(stub: Stub, run: Run) -> None:
    stub.on("POST", "/generate", Answer(body=MADE))
    result = run("-o", "json", "generate", "-", stdin="Once\n")
    assert json.loads(result.stdout) == MADE
    assert stub.asked[0].body == {"prompt": "Once\n"}


def test_tokenize(stub: Stub, run: Run) -> None:
    stub.on("POST", "/tokenize", Answer(body={"token_ids": [5, 6], "num_tokens": 2}))
    assert run("tokenize", "a b").stdout == "5 6\n"
    assert json.loads(run("tokenize", "a b", "-o", "json").stdout)["num_tokens"] == 2


def test_a_model_that_is_not_there_is_exit_code_3(stub: Stub, run: Run) -> None:
    for path in ("/generate", "/stream/generate"):
        stub.on("POST", path, problem(404, "model_not_found", "Model 'x' not found"))
    for words in (("generate", "a", "-m", "x"), ("generate", "a", "-m", "x", "-o", "json")):
        result = run(*words)
        assert result.exit_code == 3
        assert "Model 'x' not found" in result.stderr


def test_a_stream_that_fails_in_the_middle(stub: Stub, run: Run) -> None:
    failed = event(error="The replica failed.", code="replica_bad_answer", status=502, request_id="r1")
    stub.on("POST", "/stream/generate", sse(event(token="a"), failed, whole=True))
    result = run("generate", "x")
    assert (result.stdout, result.exit_code) == ("a\n", 1)
    assert "The replica failed." in result.stderr


@pytest.mark.parametrize("whole", [True, False])
def test_a_stream_without_its_end_is_not_taken_for_whole(stub: Stub, whole: bool) -> None:
    stub.on("POST", "/stream/generate", sse(event(token="a"), whole=whole))
    with Client(stub.url, "k" * 32) as client:
        came: list[str] = []
        with pytest.raises(Unreachable):
            came.extend(client.stream_generate("x"))
        assert came == ["a"]


def test_the_python_clients(stub: Stub) -> None:
    stub.on("POST", "/generate", problem(503, "no_ready_replica", headers={"Retry-After": "0"}), Answer(body=MADE))
    stub.on("POST", "/batch/generate", Answer(body={"results": [MADE, MADE]}))
    stub.on("POST", "/batch/tokenize", Answer(body={"results": []}))
    stub.on("GET", "/models", Answer(body={"models": []}))
    stub.on("POST", "/stream/generate", sse(event(token="a"), event(token="b"), event(done=True)))
    with Client(stub.url, "k" * 32) as client:
        assert client.generate("a", model_id="m", temperature=0.5, seed=None) == MADE, "asked again: it changes nothing"
        assert stub.asked[-1].body == {"prompt": "a", "temperature": 0.5, "model_id": "m"}
        assert client.generate_batch(["a", "b"], max_tokens=3)["results"] == [MADE, MADE]
        assert client.tokenize_batch(["a"]) == {"results": []}
        assert client.list_served_models() == {"models": []}
        assert list(client.stream_generate("a")) == ["a", "b"]

    async def all_again() -> list[str]:
        async with AsyncClient(stub.url, "k" * 32) as client:
            assert await client.generate("a") == MADE
            return [piece async for piece in client.stream_generate("a")]

    assert asyncio.run(all_again()) == ["a", "b"]


def test_what_a_stream_is_refused_with(stub: Stub) -> None:
    stub.on("POST", "/stream/generate", problem(404, "model_not_found", "Model 'x' not found"))
    with Client(stub.url, "k" * 32) as client, pytest.raises(NotFound, match="Model 'x' not found"):
        next(client.stream_generate("a"))


def test_a_stream_of_something_else(stub: Stub) -> None:
    stub.on("POST", "/stream/generate", sse("data: hello\n\n"))
    with Client(stub.url, "k" * 32) as client, pytest.raises(ApiError, match="not Hostler's"):
        next(client.stream_generate("a"))
