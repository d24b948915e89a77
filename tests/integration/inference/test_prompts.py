"""Prompts to services: the replica that answers, chats that a model does not know, and what goes wrong."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from app.api.v1 import vllm as routes
from app.engines.registry import STORES, engine
from app.usecases import services
from app.usecases.context import Actor
from tests.integration.inference.conftest import Served, events
from tests.integration.inference.test_server import state
from tests.integration.inference.test_trouble import STREAM, answering, chunk, http
from tests.support import services as made
from tests.support.embedded import wait_until
from tests.support.engines import Running, running
from tests.support.problems import assert_problem
from tests.support.services import Hands

PROMPT = {"prompt": "Tell me a joke about programming", "max_tokens": 5}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_chatless", routes.Chatless())


class Service:
    """A service whose replicas are what a test says they are."""

    def __init__(
        self,
        served: Served,
        count: int,
        kind: str = "vllm",
        model: str = "gpt2",
        name: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.served, self.hands = served, Hands(served.ctx)
        with served.ctx.database.read() as connection:
            owner = connection.execute(text("SELECT id FROM keys LIMIT 1")).scalar_one()
        body = {
            "server_mode": "replica", "model_name": model, "run": {"engine": kind, "source": model},
            "replica_config": config or {},
        }  # fmt: skip
        limits = {"max_surge": 0, "max_unavailable": 1} if kind in STORES else {}
        self.id = made.create(
            served.ctx, Actor(owner, "test", "admin"), count, name=name, body=body, update=limits
        ).service_id
        self.replicas = [row.id for row in self.hands.replicas(self.id)]
        self.ports: dict[str, int] = {}

    def ready(self, *ports: int) -> Service:
        """Its first replicas are ready, at these ports."""
        for replica_id, port in zip(self.replicas, ports, strict=False):
            self.hands.make_ready(replica_id)
            with self.served.ctx.database.begin() as connection:
                connection.execute(
                    text("UPDATE replicas SET port = :port, host = '127.0.0.1', node = 'here' WHERE id = :id"),
                    {"port": port, "id": replica_id},
                )
            self.ports[replica_id] = port
        return self

    def open(self, **more: Any) -> Service:
        self.served.open(services={self.id: self.ports}, **more)
        return self

    def prompt(self, body: dict[str, Any] | None = None, key: str = "", **more: Any) -> TestResponse:
        return self.served.post(f"/api/v1/vllm/{self.id}/prompt", {**PROMPT, **(body or {}), **more}, key)


def run(served: Served, kind: str = "vllm", model: str = "gpt2", **config: Any) -> Running:
    folder = served.folder / f"attempt-{time.monotonic_ns()}"
    request = {"model_name": model, "source": model}
    it = served.exits.enter_context(running(engine(kind), folder, request=request, **config))
    it.wait_ready()
    return it


def gpt2(served: Served, count: int = 1) -> tuple[Service, list[Running]]:
    engines = [run(served) for _ in range(count)]
    return Service(served, count).ready(*(one.port for one in engines)).open(), engines


def asked(it: Running) -> int:
    return int(state(it)["started"])


def test_an_answer_says_who_gave_it(served: Served) -> None:
    one = run(served, model="Qwen/Qwen2.5-0.5B-Instruct")
    service = Service(served, 1, model="Qwen/Qwen2.5-0.5B-Instruct").ready(one.port).open()
    told = service.prompt().get_json()
    assert len(told.pop("text").split()) == 5
    assert told == {
        "success": True,
        "routed_to": f"{service.replicas[0]}:{one.port}",
        "service_id": service.id,
        "group_id": None,
        "total_replicas": 1,
        "replica_id": service.replicas[0],
        "model": "Qwen/Qwen2.5-0.5B-Instruct",
        "endpoint_used": CHAT,
        "finish_reason": "length",
        "usage": {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11},
    }


def test_every_parameter_reaches_the_engine(served: Served) -> None:
    one = run(served, model="m")
    service = Service(served, 1, model="m").ready(one.port).open()
    wish = {"max_tokens": 7, "temperature": 0.7, "top_p": 0.5, "seed": 3, "stop": ["x"]}
    assert service.prompt(wish, system_prompt="Be brief", model="m").status_code == 200
    seen = state(one)["last_request"]
    assert {name: seen[name] for name in wish} == wish
    assert [(message["role"], message["content"]) for message in seen["messages"]] == [
        ("system", "Be brief"),
        ("user", PROMPT["prompt"]),
    ]
    # null leaves out, and what is left out is the model's own but for a bound
    assert service.prompt(dict.fromkeys(wish)).status_code == 200
    assert set(state(one)["last_request"]) == {"messages", "max_tokens"}


def test_a_model_without_a_chat_template_goes_on_from_the_text(served: Served) -> None:
    service, [one] = gpt2(served)
    told = service.prompt(model="gpt2").get_json()
    assert (told["endpoint_used"], len(told["text"].split())) == (COMPLETIONS, 5)
    # the refused chat is no work of the engine's, so count what it was asked with the request it saw last
    assert state(one)["last_request"]["prompt"] == PROMPT["prompt"]
    before = asked(one)
    assert service.prompt(system_prompt="Be brief").get_json()["endpoint_used"] == COMPLETIONS
    assert asked(one) == before + 1
    assert state(one)["last_request"]["prompt"] == f"Be brief\n\n{PROMPT['prompt']}"
    assert [one["text"] for one in events(service.prompt(stream=True))[1:-1]]


def test_what_a_service_learnt_holds_for_its_revision_only(served: Served) -> None:
    service, _ = gpt2(served)
    service.prompt()
    assert (service.id, 1) in routes._chatless
    assert (service.id, 2) not in routes._chatless


def test_a_stream_says_first_who_answers(served: Served) -> None:
    service, [one] = gpt2(served)
    answer = service.prompt(stream=True)
    first, *texts, last = events(answer)
    assert first == {
        "success": True,
        "routed_to": f"{service.replicas[0]}:{one.port}",
        "service_id": service.id,
        "group_id": None,
        "total_replicas": 1,
        "replica_id": service.replicas[0],
        "model": "gpt2",
        "endpoint_used": COMPLETIONS,
    }
    assert "".join(one["text"] for one in texts) == service.prompt().get_json()["text"]
    assert last["done"] is True
    assert last["usage"]["completion_tokens"] == 5
    assert answer.headers["X-Hostler-Replica"] == service.replicas[0]


def test_a_caller_that_leaves_ends_it_at_the_replica(served: Served) -> None:
    one = run(served, "mock", model="m", mock={"tokens_per_s": 5, "ttft_ms": 0})
    service = Service(served, 1, "mock", "m").ready(one.port).open()
    answer = service.prompt(stream=True, max_tokens=1000)
    parts = answer.iter_encoded()
    assert b"routed_to" in next(parts)
    next(parts)
    answer.close()
    wait_until(lambda: state(one)["cancelled"] == 1, 10, "the end of what nobody reads")


def test_all_replicas_of_a_group_answer(served: Served) -> None:
    service, engines = gpt2(served, 3)
    told = [service.prompt().get_json() for _ in range(12)]
    assert {one["routed_to"] for one in told} == {f"{one}:{port}" for one, port in service.ports.items()}
    assert {(one["group_id"], one["total_replicas"]) for one in told} == {(service.id, 3)}
    assert all(asked(one) >= 3 for one in engines)


def test_while_its_model_changes_each_replica_is_asked_for_its_own(served: Served) -> None:
    old, new = run(served, model="old"), run(served, model="new")
    service = Service(served, 2, model="old").ready(old.port, new.port).open()
    with served.ctx.database.begin() as connection:
        connection.execute(text("UPDATE replicas SET model_name = 'new' WHERE id = :id"), {"id": service.replicas[1]})
    told = {(one["model"], one["replica_id"]) for one in (service.prompt().get_json() for _ in range(8))}
    assert told == {("old", service.replicas[0]), ("new", service.replicas[1])}
    for model in ("old", "new"):
        assert {service.prompt(model=model).get_json()["model"] for _ in range(4)} == {model}
    assert assert_problem(service.prompt(model="other"), 404, "model_not_found")["models"] == ["new", "old"]


def test_a_service_is_found_by_its_name_too(served: Served) -> None:
    one = run(served)
    service = Service(served, 1, name="chatty").ready(one.port).open()
    assert served.post("/api/v1/vllm/chatty/prompt", PROMPT).get_json()["service_id"] == service.id


@pytest.mark.parametrize("kind", ["mock", "sglang"])
def test_other_engines_that_make_text_answer_too(served: Served, kind: str) -> None:
    one = run(served, kind, model="m")
    service = Service(served, 1, kind, "m").ready(one.port).open()
    assert service.prompt().get_json()["endpoint_used"] == CHAT


def test_the_models_of_a_service(served: Served) -> None:
    service, [one] = gpt2(served)
    told = served.get(f"/api/v1/vllm/{service.id}/models").get_json()
    assert told["models"] == ["gpt2"]
    assert told["routed_to"] == f"{service.replicas[0]}:{one.port}"


def test_a_model_that_it_does_not_serve(served: Served) -> None:
    service, _ = gpt2(served)
    told = assert_problem(service.prompt(model="gpt3"), 404, "model_not_found")
    assert told["models"] == ["gpt2"]
    assert "gpt2" in told["errors"]["model"][0]


@pytest.mark.parametrize(
    "body, status",
    [
        ({"prompt": ""}, 400),
        ({"prompt": None}, 422),
        ({"prompt": ["a"]}, 422),
        ({"max_tokens": 0}, 422),
        ({"max_tokens": "10"}, 422),
        ({"temperature": -1}, 422),
        ({"top_p": 0}, 422),
        ({"stream": "yes"}, 422),
        ({"stop": ["a"] * 5}, 422),
        ({"model": ""}, 422),
        ({"max_token": 5}, 422),
    ],
)
def test_what_cannot_be_asked(served: Served, body: dict[str, Any], status: int) -> None:
    service = Service(served, 1).ready(1)
    assert service.prompt(body).status_code == status
    assert served.post(f"/api/v1/vllm/{service.id}/prompt", {}).status_code == 400


def test_services_that_cannot_answer(served: Served) -> None:
    starting = Service(served, 2)
    answer = starting.prompt()
    told = assert_problem(answer, 503, "no_ready_replica")
    assert "is starting" in told["detail"]
    assert int(answer.headers["Retry-After"]) > 0
    services.scale(served.ctx, Actor(_owner(served), "test", "admin"), starting.id, 0)
    told = assert_problem(starting.prompt(), 503, "no_ready_replica")
    assert "scaled to 0" in told["detail"]
    assert "is starting" not in told["detail"]
    services.cancel(served.ctx, Actor(_owner(served), "test", "admin"), starting.id)
    assert_problem(starting.prompt(), 409, "conflict")
    assert_problem(served.post("/api/v1/vllm/0123456789ab/prompt", PROMPT), 404, "not_found")
    assert_problem(served.post("/api/v1/vllm/no-such/prompt", PROMPT), 404, "not_found")
    nobody = Service(served, 1)
    nobody.hands.make_ready(*nobody.replicas)
    assert_problem(nobody.prompt(), 409, "conflict")


@pytest.mark.parametrize("kind, config", [("vllm", {"runner": "pooling"}), ("qdrant-edge", {})])
@pytest.mark.parametrize("is_ready", [True, False])
def test_services_of_another_kind(served: Served, kind: str, config: dict[str, Any], is_ready: bool) -> None:
    vectors = Service(served, 1, kind, "v", config=config)
    if is_ready:
        vectors.ready(1)
    for answer in (
        vectors.prompt(),
        served.get(f"/api/v1/vllm/{vectors.id}/models"),
        served.get(f"/api/v1/vllm/{vectors.id}/metrics"),
    ):
        told = assert_problem(answer, 409, "conflict")
        assert "answers no prompts" in told["detail"]


def _owner(served: Served) -> str:
    with served.ctx.database.read() as connection:
        return str(connection.execute(text("SELECT id FROM keys LIMIT 1")).scalar_one())


def test_all_replicas_out(served: Served) -> None:
    one = run(served)
    service = Service(served, 1).ready(one.port).open()
    one.process.kill()
    one.process.wait(10)
    answer = service.prompt()
    assert answer.status_code == 503, answer.get_data(as_text=True)
    assert int(answer.headers["Retry-After"]) > 0


def test_who_may_ask(served: Served) -> None:
    service, _ = gpt2(served)
    assert service.prompt(key=served.make_key("infer", models=["gpt2"])).status_code == 200
    other = served.make_key("infer", models=["other"])
    assert_problem(service.prompt(key=other), 403, "model_forbidden")
    assert_problem(served.get(f"/api/v1/vllm/{service.id}/models", other), 403, "model_forbidden")
    assert_problem(served.get(f"/api/v1/vllm/{service.id}/metrics", other), 403, "model_forbidden")
    assert_problem(service.prompt(key=served.make_key("read")), 403, "forbidden")


TEMPLATE = b'{"error": {"message": "default chat template is no longer allowed", "code": 400}}'


@pytest.mark.parametrize(
    "raw, status, code",
    [
        (http("400 Bad Request", b'{"error": {"message": "too long a prompt"}}'), 422, "replica_refused"),
        (http("422 No", b'{"detail": "no"}'), 422, "replica_refused"),
        (http("429 Busy", b"{}"), 429, "busy"),
        (
            http("500 Oh", b'{"error": {"message": "no chat template: default chat template"}}'),
            502,
            "replica_bad_answer",
        ),
        (http("401 Who", b"{}"), 502, "replica_bad_answer"),
        (http("404 Nowhere", b"{}"), 501, "not_offered"),
        (http("400 Bad Request", TEMPLATE), 422, "replica_refused"),
        (http("200 OK", b"nonsense"), 502, "replica_bad_answer"),
        (http("200 OK", b'{"choices": []}'), 502, "replica_bad_answer"),
        (http("200 OK", b'{"choices": [{"message": 5}]}'), 502, "replica_bad_answer"),
        (http("200 OK", b"[" * 100_000), 502, "replica_bad_answer"),
        # it announced more than it sent
        (http("200 OK", b'{"choices": []}').replace(b"Length: ", b"Length: 9"), 502, "replica_bad_answer"),
    ],
    ids=range(12),
)
def test_replicas_that_answer_badly(served: Served, raw: bytes, status: int, code: str) -> None:
    port = served.exits.enter_context(answering(raw))
    service = Service(served, 1).ready(port).open()
    assert_problem(service.prompt(), status, code)
    assert (service.id, 1) not in routes._chatless


def event(**delta: Any) -> bytes:
    return chunk(b"data: " + json.dumps({"choices": [{"delta": delta}]}).encode() + b"\n\n")


def test_a_stream_that_breaks_before_its_first_text_is_asked_again(served: Served) -> None:
    broken = served.exits.enter_context(answering(STREAM + event(role="assistant")))
    good = run(served, "mock", model="m")
    service = Service(served, 2, "mock", "m").ready(broken, good.port).open()
    for _ in range(4):
        first, *_texts, last = events(service.prompt(stream=True))
        assert first["replica_id"] == service.replicas[1]
        assert last["done"] is True


def test_an_answer_that_breaks_off_is_asked_again(served: Served) -> None:
    broken = served.exits.enter_context(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))
    good = run(served, "mock", model="m")
    service = Service(served, 2, "mock", "m").ready(broken, good.port).open()
    assert {service.prompt().get_json()["replica_id"] for _ in range(6)} == {service.replicas[1]}


def test_a_stream_that_breaks_later_says_so(served: Served) -> None:
    broken = served.exits.enter_context(answering(STREAM + event(content="Why")))
    service = Service(served, 1, "mock", "m").ready(broken).open()
    first, text_, last = events(service.prompt(stream=True))
    assert (first["replica_id"], text_) == (service.replicas[0], {"text": "Why"})
    assert (last["code"], last["status"]) == ("replica_bad_answer", 502)


def test_a_slow_prompt_holds_up_nobody_else(served: Served) -> None:
    slow = run(served, "mock", model="m", mock={"ttft_ms": 60_000})
    service = Service(served, 1, "mock", "m").ready(slow.port).open(server_s=2)
    done: list[int] = []
    thread = threading.Thread(target=lambda: done.append(service.prompt().status_code))
    thread.start()
    wait_until(lambda: state(slow)["active"] == 1, 10, "the slow prompt")
    assert served.get("/models").status_code == 200
    thread.join(30)
    assert done == [504]
