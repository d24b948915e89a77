"""``POST /chat`` over real engines: what is asked reaches them, and what is wrong is told."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from werkzeug.test import TestResponse

from tests.integration.inference.conftest import Served
from tests.integration.inference.test_server import state
from tests.integration.inference.test_trouble import STREAM, behind, chunk, http
from tests.support.embedded import wait_until
from tests.support.problems import assert_problem

SEED = {
    "prompt": "Hello, world!",
    "system_prompt": "You are a helpful assistant.",
    "max_tokens": 32,
    "temperature": 0.8,
    "top_p": 0.9,
    "repeat_penalty": 1.1,
}


def said(answer: TestResponse) -> str:
    assert answer.status_code == 200, answer.get_data(as_text=True)
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    return answer.get_data(as_text=True)


def test_every_parameter_reaches_the_engine(served: Served) -> None:
    it = served.run("m", "mock")
    served.open()
    answer = served.post("/chat", SEED | {"max_tokens": 7, "temperature": 0.3, "top_p": 0.4, "repeat_penalty": 1.7})
    assert len(said(answer).split()) == 7
    assert answer.headers["X-Hostler-Replica"]
    asked = state(it)["last_request"]
    assert asked["messages"] == [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, world!"},
    ]
    wanted = {"max_tokens": 7, "temperature": 0.3, "top_p": 0.4, "repetition_penalty": 1.7, "stream": True}
    assert {name: asked[name] for name in wanted} == wanted


def test_what_was_not_sent_is_as_the_contract_has_it(served: Served) -> None:
    it = served.run("m", "mock")
    served.open()
    said(served.post("/chat", {"prompt": "Hello"}))
    asked = state(it)["last_request"]
    wanted = {"max_tokens": 256, "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1}
    assert {name: asked[name] for name in wanted} == wanted
    assert [one["role"] for one in asked["messages"]] == ["user"]


def test_llama_cpp_does_what_each_parameter_says(served: Served) -> None:
    served.run("m")
    served.open()

    def ask(**more: Any) -> str:
        return said(served.post("/chat", {"prompt": "the engine", "max_tokens": 24, "temperature": 0, **more}))

    plain = ask(repeat_penalty=1)
    assert ask(repeat_penalty=1) == plain, "the likeliest token is the same one twice"
    assert ask(repeat_penalty=5) != plain
    assert ask(repeat_penalty=1, system_prompt="You are a railway hand.") != plain
    assert plain.startswith(ask(repeat_penalty=1, max_tokens=4))
    assert len(ask(repeat_penalty=1, max_tokens=4)) < len(plain)
    # hot, but from so few tokens that it is the likeliest one again; and hot, from all of them
    assert ask(repeat_penalty=1, temperature=5, top_p=0.0001) == plain
    assert ask(repeat_penalty=1, temperature=5, top_p=1) != plain


@pytest.mark.parametrize(
    "body, status, field",
    [
        ({}, 400, "prompt"),
        ({"system_prompt": "a"}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": None}, 422, "prompt"),
        ({"prompt": ["a"]}, 422, "prompt"),
        ({"prompt": "a", "system_prompt": 3}, 422, "system_prompt"),
        ({"prompt": "a", "max_tokens": 0}, 422, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, 422, "max_tokens"),
        ({"prompt": "a", "max_tokens": "5"}, 422, "max_tokens"),
        ({"prompt": "a", "max_tokens": 10**9}, 422, "max_tokens"),
        ({"prompt": "a", "temperature": -0.1}, 422, "temperature"),
        ({"prompt": "a", "temperature": 101}, 422, "temperature"),
        ({"prompt": "a", "temperature": True}, 422, "temperature"),
        ({"prompt": "a", "top_p": 0}, 422, "top_p"),
        ({"prompt": "a", "top_p": 1.1}, 422, "top_p"),
        ({"prompt": "a", "repeat_penalty": 0}, 422, "repeat_penalty"),
        ({"prompt": "a", "repeat_penalty": 11}, 422, "repeat_penalty"),
        ({"prompt": "a", "stream": True}, 422, "stream"),
        ({"prompt": "a", "model_id": "m"}, 422, "model_id"),
    ],
)
def test_what_cannot_be_asked(served: Served, body: dict[str, Any], status: int, field: str) -> None:
    answer = served.post("/chat", body)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert field in answer.get_json(force=True)["errors"]


@pytest.mark.parametrize(
    "data, kind, status",
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"prompt": NaN}', "application/json", 400),
        (b"prompt=a", "application/x-www-form-urlencoded", 415),
        (b'{"prompt": "' + b"a" * 1_100_000 + b'"}', "application/json", 413),
    ],
)
def test_what_is_no_request(served: Served, data: bytes, kind: str, status: int) -> None:
    answer = served.app.test_client().post("/chat", data=data, headers={"X-API-Key": served.key, "Content-Type": kind})
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


@pytest.mark.parametrize("key", ["", "wrong", "hostler_0123456789012345678901234567890123"])
def test_a_bad_key(served: Served, key: str) -> None:
    headers = {"X-API-Key": key} if key else {}
    problem = assert_problem(served.app.test_client().post("/chat", json=SEED, headers=headers), 401, "unauthenticated")
    assert problem["detail"] == problem["error"] == "Bad API key"
    assert "key" in problem["errors"]["X-API-Key"][0]
    text = served.app.test_client().post("/chat", json=SEED, headers=headers | {"Accept": "text/plain"})
    assert (text.status_code, text.get_data(as_text=True)) == (401, "Bad API key")
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert text.headers["WWW-Authenticate"]


def test_a_key_of_another_role(served: Served) -> None:
    assert_problem(served.post("/chat", SEED, served.make_key("read")), 403, "forbidden")


def test_a_key_for_other_models(served: Served) -> None:
    served.run("m", "mock")
    served.open()
    assert_problem(served.post("/chat", SEED, served.make_key(models=["other"])), 503, "no_ready_replica")
    said(served.post("/chat", SEED, served.make_key(models=["m", "other"])))


def test_nothing_was_ready_yet(served: Served) -> None:
    served.row("m", "mock", state="pending")
    problem = assert_problem(served.post("/chat", SEED), 503, "starting")
    assert problem["detail"] == "Server is starting up"
    text = served.post("/chat", SEED, Accept="text/plain")
    assert (text.status_code, text.get_data(as_text=True)) == (503, "Server is starting up")
    assert text.headers["Retry-After"] == "1"


def test_two_models_and_none_the_chats(two_models: Served) -> None:
    problem = assert_problem(two_models.post("/chat", SEED), 503, "no_ready_replica")
    assert "HOSTLER_CHAT_SERVICE" in problem["detail"]


def test_a_full_queue(served: Served) -> None:
    served.run("m", "mock", mock={"latency_ms": 60_000})
    served.open(maxconn=1, queued=1)
    answers: list[Any] = []
    asking = [threading.Thread(target=lambda: answers.append(served.post("/chat", SEED))) for _ in range(8)]
    for one in asking:
        one.start()
    wait_until(lambda: answers, 20, "a full queue")
    assert_problem(answers[0], 429, "queue_full")
    assert answers[0].headers["Retry-After"] == "3"
    served.door.close()
    for one in asking:
        one.join()


def test_a_context_that_is_too_short(served: Served) -> None:
    served.run("m", n_ctx=256)
    served.open()
    problem = assert_problem(served.post("/chat", SEED | {"prompt": "x " * 2000}), 422, "replica_refused")
    assert "context" in problem["error"]


def event(**delta: Any) -> bytes:
    return chunk(b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n")


def test_what_breaks_off_is_no_answer(served: Served) -> None:
    behind(served, STREAM + event(role="assistant", content=None) + event(content="one"))
    served.open()
    answer = served.post("/chat", SEED)
    assert answer.status_code == 200
    with pytest.raises(ConnectionResetError):
        answer.get_data()


@pytest.mark.parametrize("end", [b"", b"0\r\n\r\n"])
def test_what_breaks_off_before_its_first_text_has_a_status(served: Served, end: bytes) -> None:
    behind(served, STREAM + event(role="assistant", content="") + end)
    served.open()
    assert_problem(served.post("/chat", SEED), 502, "replica_bad_answer")


def test_an_answer_without_a_word_is_one(served: Served) -> None:
    behind(served, STREAM + event(role="assistant") + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    served.open()
    assert said(served.post("/chat", SEED)) == ""


def test_characters_split_over_pieces_stay_whole(served: Served) -> None:
    pieces = event(content="ü🚂") + chunk(b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n')
    pieces += chunk(b'data: {"choices": [{"delta": {"content": "\\ude82b"}}]}\n\n') + chunk(b"data: [DONE]\n\n")
    behind(served, STREAM + pieces + b"0\r\n\r\n")
    served.open()
    assert said(served.post("/chat", SEED)) == "ü🚂a🚂b"


def test_an_engine_that_knows_no_such_penalty_is_told_only_what_was_sent(served: Served) -> None:
    behind(served, http("400 Bad", b'{"error": {"message": "Unrecognized request argument: repetition_penalty"}}'))
    served.row("m", "openai-compatible")
    served.open()
    problem = assert_problem(served.post("/chat", SEED), 422, "replica_refused")
    assert "repetition_penalty" in problem["detail"]
