"""Which model a request means, which keys may ask for it, and which engine's language it is asked in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import text

from tests.integration.inference.conftest import Served, events

GENERATE = {"prompt": "Hello", "max_tokens": 10}


def catalogue(served: Served, name: str, *aliases: str) -> None:
    with served.ctx.database.begin() as connection:
        connection.execute(
            text("INSERT INTO models (name, engine, aliases, owner) VALUES (:name, 'mock', :aliases, 'k')"),
            {"name": name, "aliases": list(aliases)},
        )


def test_without_a_name_the_only_ready_model_is_meant(served: Served) -> None:
    served.run("alone", "mock")
    served.row("sleepy", "mock", state="pending")
    served.open()
    assert served.post("/generate", GENERATE).get_json()["num_generated"] == 10
    assert served.post("/tokenize", {"text": "a b"}).get_json()["num_tokens"] == 2


def test_without_a_name_several_ready_models_are_listed(two_models: Served) -> None:
    answer = two_models.post("/generate", GENERATE)
    assert answer.status_code == 400
    problem = answer.get_json(force=True)
    assert problem["code"] == "model_required"
    assert problem["models"] == ["llama-7b", "mistral-7b"]
    assert "llama-7b, mistral-7b" in problem["error"]


def test_without_a_name_and_a_ready_model_the_next_command_is_told(served: Served) -> None:
    problem = served.post("/generate", GENERATE).get_json(force=True)
    assert (problem["status"], problem["code"], problem["models"]) == (400, "model_required", [])
    assert "hostler replica create" in problem["error"]


def test_the_default_model_of_the_settings(make_served: Callable[..., Served]) -> None:
    served = make_served(default_model="mistral-7b")
    served.run("llama-7b", seed=7)
    served.run("mistral-7b", seed=8)
    served.open()
    made = served.post("/generate", GENERATE).get_json()
    assert made == served.post("/generate", GENERATE | {"model_id": "mistral-7b"}).get_json()
    assert made != served.post("/generate", GENERATE | {"model_id": "llama-7b"}).get_json()


def test_an_alias_is_the_model(served: Served) -> None:
    catalogue(served, "tiny", "t", "smallest")
    it = served.run("tiny", "mock")
    served.routes["t"] = [it.port]
    served.open()
    assert served.post("/generate", GENERATE | {"model_id": "t"}).status_code == 200
    [model] = served.get("/models").get_json()["models"]
    assert (model["id"], model["loaded"]) == ("tiny", True)


def test_a_key_that_is_limited_to_an_alias_asks_by_that(served: Served) -> None:
    catalogue(served, "tiny", "t", "smallest")
    it = served.run("tiny", "mock")
    served.routes |= {"t": [it.port], "smallest": [it.port]}
    served.open()
    key = served.make_key(models=["t"])
    assert [model["id"] for model in served.get("/models", key).get_json()["models"]] == ["t"]
    assert served.post("/generate", GENERATE, key).status_code == 200
    for name, status in (("t", 200), ("tiny", 403), ("smallest", 403)):
        assert served.post("/generate", GENERATE | {"model_id": name}, key).status_code == status, name
    whole = served.make_key(models=["tiny"])
    for name in ("t", "tiny", "smallest"):
        assert served.post("/generate", GENERATE | {"model_id": name}, whole).status_code == 200, name


def test_a_limited_key_sees_and_asks_only_its_models(two_models: Served) -> None:
    key = two_models.make_key(models=["mistral-7b"])
    assert [model["id"] for model in two_models.get("/models", key).get_json()["models"]] == ["mistral-7b"]
    assert two_models.post("/generate", GENERATE, key).status_code == 200, "its only one is its default"
    for name in ("llama-7b", "never-heard-of"):
        for path in ("/generate", "/stream/generate"):
            answer = two_models.post(path, GENERATE | {"model_id": name}, key)
            assert answer.status_code == 403, "what is not allowed is not told to exist or not"
            assert answer.get_json(force=True)["code"] == "model_forbidden"


def test_a_limited_key_cannot_go_round_by_replica_or_service(two_models: Served) -> None:
    key = two_models.make_key(models=["mistral-7b"])
    with two_models.ctx.database.begin() as connection:
        replica_id = connection.execute(
            text(
                "UPDATE replicas SET labels = '{\"service_id\": \"0123456789ab\"}' WHERE model_name = 'llama-7b'"
                " RETURNING id"
            )
        ).scalar_one()
    for header in ({"X_Hostler_Replica": replica_id}, {"X_Hostler_Service": "0123456789ab"}):
        for named in ({}, {"model_id": "mistral-7b"}):
            assert two_models.post("/generate", GENERATE | named, key, **header).status_code == 403
        assert two_models.post("/generate", GENERATE | {"model_id": "mistral-7b"}, **header).status_code == 400
    assert two_models.post("/generate", GENERATE, X_Hostler_Replica=replica_id).status_code == 200


def test_a_service_of_several_models_is_named_only_to_who_may_ask_all(two_models: Served) -> None:
    with two_models.ctx.database.begin() as connection:
        connection.execute(text('UPDATE replicas SET labels = \'{"service_id": "0123456789ab"}\''))
    answer = two_models.post("/generate", GENERATE, X_Hostler_Service="0123456789ab")
    assert answer.status_code == 400
    assert "llama-7b, mistral-7b" in answer.get_json(force=True)["detail"]
    for name in ("llama-7b", "mistral-7b"):
        key = two_models.make_key(models=[name])
        answer = two_models.post("/generate", GENERATE | {"model_id": name}, key, X_Hostler_Service="0123456789ab")
        assert answer.status_code == 403


@pytest.mark.parametrize("header", ["X_Hostler_Replica", "X_Hostler_Service"])
def test_a_replica_or_service_that_is_not_there(served: Served, header: str) -> None:
    assert served.post("/generate", GENERATE, **{header: "0123456789ab"}).status_code == 404
    assert served.post("/generate", GENERATE, **{header: "no such thing"}).status_code == 400


def test_roles(two_models: Served) -> None:
    body = GENERATE | {"model_id": "llama-7b"}
    for role, status in (("read", 403), ("register", 403), ("operate", 200)):
        assert two_models.post("/generate", body, two_models.make_key(role)).status_code == status


def test_the_mock_engine_tells_tokens_too(served: Served) -> None:
    served.run("m", "mock")
    served.open()
    body = GENERATE | {"seed": 1}
    made = served.post("/generate", body).get_json()
    assert made["num_generated"] == len(made["token_ids"]) == 10
    assert made == served.post("/generate", body).get_json()
    assert served.post("/tokenize", {"text": made["text"]}).get_json()["token_ids"] == made["token_ids"]
    told = events(served.post("/stream/generate", body))
    assert [one.get("token", "") for one in told[:-1]] == [f" {word}" for word in made["text"].split()]
    assert told[-1] == {"done": True}


def test_two_engines_behind_one_model_are_asked_in_what_both_speak(served: Served) -> None:
    served.run("m")
    served.run("m", "mock")
    served.open()
    answers = [served.post("/generate", GENERATE) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.get_json()["num_generated"] for answer in answers} == {10}
    assert [answer.get_json()["token_ids"] for answer in answers] == [[]] * 6
    assert len({answer.headers["X-Hostler-Replica"] for answer in answers}) == 2
    answer = served.post("/tokenize", {"text": "a"})
    assert (answer.status_code, answer.get_json(force=True)["code"]) == (501, "not_offered")


def test_a_model_of_embeddings_makes_no_text(served: Served) -> None:
    served.run("e", embedding=True, pooling="mean")
    served.open()
    answer = served.post("/generate", GENERATE)
    assert (answer.status_code, answer.get_json(force=True)["code"]) == (501, "not_offered")
