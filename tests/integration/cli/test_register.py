"""``hostler register`` against answers that the real registry gives only on a bad day."""

from __future__ import annotations

import json

import pytest

from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub, problem, sse

ALIVE = 'data: {"status": "alive"}\n\n'
ENDED = 'data: {"status": "ended"}\n\n'
WORDS = ("register", "--endpoint", "localhost:50051", "--capability", "model=qwen2", "--capability", "type=chat,gpus=2")


def registered(replica_id: str) -> str:
    return f'data: {{"status": "registered", "replica_id": "{replica_id}"}}\n\n'


def test_it_stays_registered_over_breaks_and_restarts(stub: Stub, run: Run) -> None:
    stub.on(
        "POST",
        "/register",
        Answer(cut=True),
        sse(registered("r1"), ALIVE),
        problem(503, "unavailable", "the database is away", headers={"Retry-After": "0"}),
        problem(502, "bad_gateway"),
        sse(registered("r1"), ALIVE, whole=True),
        sse(registered("r1"), ENDED),
    )
    result = run(*WORDS, "--replica-id", "r1")
    assert result.exit_code == 5
    # data once, talk as often as there is something to say
    assert result.stdout == "r1\n"
    assert result.stderr.count("localhost:50051: registered as r1\n") == 3
    assert result.stderr.count("not registered: ") == 5
    assert "the database is away" in result.stderr
    assert "another registrar" in result.stderr
    bodies = [asked.body for asked in stub.asked]
    assert bodies == [bodies[0]] * 6
    assert bodies[0] == {
        "replica_id": "r1",
        "endpoint": "localhost:50051",
        "capabilities": [{"model": "qwen2"}, {"type": "chat", "gpus": 2}],
    }
    # a change that ends with its connection is not one to be replayed
    assert all("idempotency-key" not in asked.headers for asked in stub.asked)


@pytest.mark.parametrize(
    "status, code, exit_code, next_step",
    [
        (401, "unauthenticated", 4, "HOSTLER_API_KEY"),
        (403, "endpoint_refused", 4, "HOSTLER_REGISTER_ALLOW"),
        (403, "forbidden", 4, "hostler key create NAME --role register"),
        (404, "not_found", 3, "older than 0.3.0"),
        (409, "name_taken", 5, "hostler registration get r1"),
        (422, "invalid_config", 2, ""),
    ],
)
def test_what_is_refused_fails_at_once(
    stub: Stub, run: Run, status: int, code: str, exit_code: int, next_step: str
) -> None:
    stub.on("POST", "/register", problem(status, code, f"no: {code}"))
    result = run(*WORDS, "--replica-id", "r1")
    assert result.exit_code == exit_code
    assert f"no: {code}" in result.stderr
    assert next_step in result.stderr
    assert len(stub.asked) == 1


def test_the_answer_as_json_and_an_id_of_its_own(stub: Stub, run: Run) -> None:
    stub.on("POST", "/register", sse(registered("made"), ENDED))
    result = run(*WORDS, "-o", "json")
    assert json.loads(result.stdout) == {"status": "registered", "replica_id": "made"}
    assert stub.asked[0].body["replica_id"]


@pytest.mark.parametrize(
    "words", [WORDS[:3], ("register", *WORDS[3:]), (*WORDS, "--capability", "x"), (*WORDS, "--replica-id", "-")]
)
def test_what_cannot_be_meant(stub: Stub, run: Run, words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2
    assert stub.asked == []


def test_registrations_are_listed_and_removed(stub: Stub, run: Run) -> None:
    row = {
        "replica_id": "r/1",
        "endpoint": "localhost:50051",
        "capabilities": [{"model": "qwen2", "fast": True}],
        "state": "live",
        "health": "healthy",
        "owner_name": "team",
        "registered_at": "2026-01-01T00:00:00Z",
    }
    stub.on("GET", "/api/v1/registrations", Answer(body={"registrations": [row], "total": 1, "next_cursor": None}))
    stub.on("GET", "/api/v1/registrations/r%2F1", Answer(body=row))
    stub.on("DELETE", "/api/v1/registrations/r%2F1", Answer(204))
    table = run("registration", "list").stdout
    for word in ("r/1", "live", "healthy", "localhost:50051", "model=qwen2,fast=true", "team"):
        assert word in table
    assert "fast" in run("registration", "get", "r/1").stdout
    assert run("registration", "delete", "r/1").stdout == "r/1\n"
