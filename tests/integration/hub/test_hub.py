"""Models of the hub through the API: what is shown, what is kept, and what a hub that is bad or away comes to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from app.engines.vllm_models import DEFAULT_MODEL
from app.hub import asking
from app.usecases.context import Context
from tests.integration.api.conftest import Caller
from tests.standins.hub import TOKEN, Hub
from tests.support.embedded import wait_until
from tests.support.ports import free_port
from tests.support.problems import assert_problem

SEARCH = "/api/v1/vllm/search-models?query=qwen&limit=10"
INFO = "/api/v1/vllm/model-info/Qwen/Qwen2.5-7B-Instruct"


def test_architectures_and_examples_are_there_without_the_hub(admin: Caller, there: Hub) -> None:
    told = admin.get("/api/v1/vllm/available-models").get_json()
    assert "LlamaForCausalLM" in told["supported_architectures"]["text-generation"]
    assert "gpt2" in told["examples"].values()
    assert told["default_model"] == DEFAULT_MODEL
    known = {name for names in told["supported_architectures"].values() for name in names}
    assert {one["architecture"] for one in told["models"]} <= known
    assert there.asked == []


def test_a_search_tells_what_fits(admin: Caller) -> None:
    told = admin.get(SEARCH).get_json()
    assert told["total"] == len(told["models"]) == 7
    assert [one["downloads"] for one in told["models"]] == sorted(one["downloads"] for one in told["models"])[::-1]
    fits = {one["id"]: (one["architecture"], one["vllm_compatible"]) for one in told["models"]}
    assert fits == {
        "Qwen/Qwen2.5-0.5B-Instruct": ("Qwen2ForCausalLM", True),
        "Qwen/Qwen2.5-7B-Instruct": ("Qwen2ForCausalLM", True),
        "someone/qwen-of-tomorrow": ("Qwen9ForCausalLM", False),
        "someone/old-qwen": ("QWenLMHeadModel", False),
        "someone/qwen-gguf": (None, False),
        "meta/gated-qwen": (None, None),
        "secret/qwen": ("Qwen2ForCausalLM", True),
    }
    words = {one["id"]: one["compatibility"] for one in told["models"]}
    assert "up to version 0.23.0" in words["someone/old-qwen"]
    assert len(admin.get("/api/v1/vllm/search-models?limit=2").get_json()["models"]) == 2
    for wrong in ("limit=0", "limit=101", "limit=x", "sort=likes", "query=" + "x" * 201):
        assert admin.get(f"/api/v1/vllm/search-models?{wrong}").status_code == 422, wrong


def test_one_model(admin: Caller) -> None:
    told = admin.get(INFO).get_json()
    assert (told["architecture"], told["vllm_compatible"], told["task_type"]) == (
        "Qwen2ForCausalLM",
        True,
        "text-generation",
    )
    assert (told["downloads"], told["likes"], told["model_type"]) == (900, 3, "qwen2")
    assert (told["size_bytes"], told["size_gb"], told["has_chat_template"]) == (15231233024, 14.19, True)
    assert told["created_at"] == "2024-09-16T11:55:40+00:00"
    # an old name: the hub sends us on, to itself
    plain = admin.get("/api/v1/vllm/model-info/gpt2").get_json()
    assert (plain["id"], plain["vllm_compatible"], plain["has_chat_template"]) == ("openai-community/gpt2", True, False)
    vectors = admin.get("/api/v1/vllm/model-info/BAAI/bge-small-en-v1.5").get_json()
    assert (vectors["vllm_compatible"], vectors["task_type"]) == (True, "pooling")


@pytest.mark.parametrize(
    "name, status, code",
    [
        ("nobody/nothing", 404, "hub_model_not_found"),
        ("meta/closed", 403, "hub_model_gated"),
        ("a--b/c..d", 404, "hub_model_not_found"),
        ("a%20b", 404, "hub_model_not_found"),
        ("-a/b", 404, "hub_model_not_found"),
        ("a/b.git", 404, "hub_model_not_found"),
        ("..%2Fsecrets", 404, "hub_model_not_found"),
        ("x" * 97, 404, "hub_model_not_found"),
    ],
)
def test_models_that_there_are_not(admin: Caller, name: str, status: int, code: str) -> None:
    assert_problem(admin.get(f"/api/v1/vllm/model-info/{name}"), status, code)


def test_without_a_token_what_is_private_is_not_there(admin: Caller, there: Hub, ctx: Context) -> None:
    assert admin.get("/api/v1/vllm/model-info/secret/qwen").get_json()["private"] is True
    ctx.settings = replace(ctx.settings, hf_token="")
    told = admin.get("/api/v1/vllm/model-info/secret/qwen")
    assert_problem(told, 404, "hub_model_not_found")
    assert "HOSTLER_HF_TOKEN" in told.get_json()["detail"]
    assert [token for _, token in there.asked] == [f"Bearer {TOKEN}", ""]


def test_what_was_found_is_kept_and_asked_for_once(admin: Caller, there: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(5)

    def ask(_number: int) -> int:
        together.wait()
        return admin.get(INFO).status_code

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(ask, range(5))) == [200] * 5
    assert len(there.asked) == 1
    there.fault = "broken"
    assert admin.get(INFO).status_code == 200
    assert_problem(admin.get(SEARCH), 503, "hub_unavailable")
    there.fault = ""
    # what failed was not kept
    assert admin.get(SEARCH).status_code == 200


FAULTS = {
    "hang": (503, "hub_unavailable"),
    "drip": (503, "hub_unavailable"),
    "drip_body": (503, "hub_unavailable"),
    "broken": (503, "hub_unavailable"),
    "busy": (503, "hub_unavailable"),
    "refused_token": (503, "hub_unavailable"),
    "endless": (502, "hub_bad_answer"),
    "bomb": (502, "hub_bad_answer"),
    "elsewhere": (502, "hub_bad_answer"),
    "round": (502, "hub_bad_answer"),
    "html": (502, "hub_bad_answer"),
    "number": (502, "hub_bad_answer"),
    "other_object": (502, "hub_bad_answer"),
    "wrong_types": (502, "hub_bad_answer"),
    "wrong_name": (502, "hub_bad_answer"),
    "deep": (502, "hub_bad_answer"),
    "teapot": (502, "hub_bad_answer"),
}


@pytest.mark.parametrize("path", [SEARCH, INFO])
@pytest.mark.parametrize("fault", [*FAULTS, "next_elsewhere", "strange_link"])
def test_a_bad_hub(admin: Caller, there: Hub, fault: str, path: str, caplog: pytest.LogCaptureFixture) -> None:
    if path == INFO and fault not in FAULTS:
        pytest.skip("a model has no next page")
    there.fault = fault
    told = admin.get(path)
    status, code = FAULTS.get(fault, (502, "hub_bad_answer"))
    assert_problem(told, status, code)
    assert told.headers["Retry-After"]
    assert there.endpoint in told.get_json()["detail"]
    # only its own hub was asked, and it alone saw the token
    assert not any("stolen" in asked for asked, _ in there.asked)
    assert TOKEN not in told.text + caplog.text


@pytest.mark.parametrize("fault", ["forbidden", "nowhere"])
def test_a_search_that_is_refused_is_about_no_model(admin: Caller, there: Hub, fault: str) -> None:
    there.fault = fault
    assert_problem(admin.get(SEARCH), 502, "hub_bad_answer")
    status = {"forbidden": 403, "nowhere": 404}[fault]
    assert admin.get(INFO).status_code == status


def test_a_hub_that_is_away(admin: Caller, ctx: Context) -> None:
    ctx.settings = replace(ctx.settings, hf_endpoint=f"http://127.0.0.1:{free_port()}")
    for path in (SEARCH, INFO):
        assert_problem(admin.get(path), 503, "hub_unavailable")
    assert admin.get("/api/v1/vllm/available-models").status_code == 200


def test_a_name_that_nobody_resolves(admin: Caller, ctx: Context) -> None:
    ctx.settings = replace(ctx.settings, hf_endpoint="https://hub.invalid")
    assert_problem(admin.get(INFO), 503, "hub_unavailable")


def test_a_hub_that_hangs_holds_no_more_than_its_threads(admin: Caller, there: Hub) -> None:
    there.fault = "drip"
    paths = [f"/api/v1/vllm/model-info/a/b{number}" for number in range(asking.AT_ONCE * 2)]
    with ThreadPoolExecutor(len(paths)) as pool:
        assert {answer.status_code for answer in pool.map(admin.get, paths)} == {503}
    assert len(there.asked) <= asking.AT_ONCE * 2

    def held() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "hub"]

    # each was hung up on, and did not go on waiting for the rest
    wait_until(lambda: not held(), 5, "the end of what asked")
    there.fault = ""
    assert admin.get(INFO).status_code == 200


def test_who_may_look(caller: Callable[[str], Caller], anybody: Any) -> None:
    for role in ("read", "infer", "operate"):
        assert caller(role).get("/api/v1/vllm/available-models").status_code == 200
    assert caller("register").get("/api/v1/vllm/available-models").status_code == 403
    assert anybody.get("/api/v1/vllm/available-models").status_code == 401
