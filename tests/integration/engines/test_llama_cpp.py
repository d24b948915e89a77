"""The real llama.cpp on the tiny model: what goes wrong at start, and what its parameters do."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.engines.llama_cpp import MAX_PARALLEL
from app.engines.registry import engine
from app.engines.tiny_model import write_tiny_gguf
from tests.support.engines import KEY, Running, running

LLAMA = engine("llama-cpp")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


def ask(it: Running, path: str, body: dict[str, Any] | None = None) -> Any:
    request = urllib.request.Request(
        it.base_url + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


@pytest.mark.parametrize(
    "cut, says",
    [
        (lambda whole: b"", "is not a GGUF file"),
        (lambda whole: b"junk" * 1000, "is not a GGUF file"),
        (lambda whole: whole[:100_000], "could not load"),
        (lambda whole: whole[:200], "could not load"),
    ],
    ids=["empty", "junk", "half", "header"],
)
def test_a_damaged_model_ends_it_with_a_clear_line(tmp_path: Path, model: Path, cut: Any, says: str) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(cut(model.read_bytes()))
    with running(LLAMA, tmp_path / "attempt", model=damaged) as it:
        assert it.wait_exit() == 2
        last = it.log.splitlines()[-1]
        assert last.startswith("llama-cpp: ")
        assert says in last
        assert "Traceback" not in it.log


def test_parameters_reach_it(tmp_path: Path, model: Path) -> None:
    with running(LLAMA, tmp_path, model=model, n_ctx=512, max_batch_size=3, threads=1, seed=5) as it:
        it.wait_ready()
        props = ask(it, "/props")
        assert (props["total_slots"], props["model_alias"]) == (3, "tiny")
        assert props["default_generation_settings"]["n_ctx"] == 512, "a request may use the whole context"


def test_the_largest_batch_runs(tmp_path: Path, model: Path) -> None:
    with running(LLAMA, tmp_path, model=model, max_batch_size=1024) as it:
        it.wait_ready()
        assert ask(it, "/props")["total_slots"] == MAX_PARALLEL


def test_greedy_answers_repeat(tmp_path: Path, model: Path) -> None:
    with running(LLAMA, tmp_path, model=model) as it:
        it.wait_ready()
        body = {"model": "tiny", "prompt": "the engine", "max_tokens": 8, "temperature": 0}
        texts = {ask(it, "/v1/completions", body)["choices"][0]["text"] for _ in range(3)}
        assert len(texts) == 1


def test_embeddings_when_asked_for(tmp_path: Path, model: Path) -> None:
    with running(LLAMA, tmp_path, model=model, embedding=True, pooling="mean") as it:
        it.wait_ready()
        answer = ask(it, "/v1/embeddings", {"model": "tiny", "input": "the engine"})
        assert len(answer["data"][0]["embedding"]) == 64


def test_a_token_counter_moves(tmp_path: Path, model: Path) -> None:
    with running(LLAMA, tmp_path, model=model) as it:
        it.wait_ready()
        ask(it, "/v1/completions", {"prompt": "a", "max_tokens": 6})
        request = urllib.request.Request(f"{it.base_url}/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        assert "llamacpp:tokens_predicted_total 6" in lines


def test_engines_that_share_cores_start_together(tmp_path: Path, model: Path) -> None:
    # with OpenMP's default spinning ten of them took 4.4 s on four cores instead of 0.2 s
    begun = time.monotonic()
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(running(LLAMA, tmp_path / str(n), model=model)) for n in range(10)]
        for it in all_of_them:
            it.wait_ready()
    assert time.monotonic() - begun < 3
