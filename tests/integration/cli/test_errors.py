"""Every kind of failure: exit code, message, the command to type next; and when a request is sent again."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.integration.cli.conftest import Run
from tests.integration.cli.stub import Answer, Stub, problem

LIST = "/api/v1/replicas"


@pytest.mark.parametrize(
    "answer,exit_code,said",
    [
        (problem(400, "missing_fields", errors={"model_name": ["is missing"]}), 2, "model_name: is missing"),
        (problem(401, "unauthenticated", "no key"), 4, "HOSTLER_API_KEY"),
        (problem(403, "forbidden", "needs operate"), 4, "needs operate"),
        (problem(403, "forbidden", "needs a key of role admin; yours has role operate"), 4, "create NAME --role admin"),
        (problem(404, "not_found", "no replica x", instance="/api/v1/replicas/x"), 3, "hostler replica list"),
        (problem(409, "conflict", "is ready", instance="/api/v1/replicas/x"), 5, "hostler replica explain x"),
        (problem(413, "body_too_large", "too large"), 2, "too large"),
        (problem(422, "invalid_config", errors={"status": ["Not one of"]}), 2, "status: Not one of"),
        (problem(422, "unknown_pool", "no pool x"), 3, "hostler pool list"),
        (problem(422, "unknown_model", "no model x"), 3, "hostler model list"),
        (problem(429, "queue_full", "full", headers={"Retry-After": "60"}), 1, "try again in 60 s"),
        (problem(502, "replica_failed", "process_exited"), 6, "process_exited"),
        (problem(500, "internal", "oops", request_id="req-7"), 1, "request id: req-7"),
        (Answer(502, "<html>bad gateway</html>", {"Content-Type": "text/html"}), 1, "HTTP 502"),
        (Answer(200, "<html>a printer</html>", {"Content-Type": "text/html"}), 1, "not from Hostler"),
        (Answer(302, None, {"Location": "http://127.0.0.1:1/"}), 1, "redirects"),
    ],
)
def test_a_failure_has_its_exit_code_and_a_way_on(
    stub: Stub, run: Run, answer: Answer, exit_code: int, said: str
) -> None:
    stub.on("GET", LIST, answer)
    result = run("replica", "list")
    assert result.exit_code == exit_code
    assert said in result.stderr
    assert result.stdout == ""


def test_what_is_no_question_of_the_role_asks_for_no_other_key(stub: Stub, run: Run) -> None:
    stub.on("GET", LIST, problem(403, "forbidden", "The pool allows no --nodefile."))
    assert "hostler key create" not in run("replica", "list").stderr


def test_unreachable_says_how_to_start_the_stack(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = run("--url", f"http://127.0.0.1:{taken.getsockname()[1]}", "replica", "list")
    assert result.exit_code == 8
    assert "is the stack up? hostler up -d" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("replica", "create"),
        ("replica", "stop"),
        ("replica", "stop", "x", "-l", "a=b"),
        ("replica", "wait", "x", "--timeout", "soon"),
        ("replica", "create", "--model-name", "m", "--env", "NOVALUE"),
        ("replica", "create", "-f", "/nowhere.json"),
        ("replica", "logs"),
        ("replica", "fly"),
        ("replica", "get", ""),
        ("replica", "get", "."),
        ("replica", "stop", ".."),
        ("pool", "delete", ""),
        ("replica", "list", "--limit", "0"),
        ("replica", "logs", "x", "--tail", "-1"),
        ("replica", "create", "--model-name", "m", "--gpus", "-1"),
        ("replica", "create", "--model-name", "m", "--label", "x"),
        ("replica", "create", "--model-name", "m", "--priority", "p9"),
        ("key", "create", "x", "--role", "king"),
        ("--url", "ftp://x", "health"),
        ("--url", "http://user:secret@127.0.0.1", "health"),
        ("pool", "create", "x"),
        ("key", "create", "x"),
    ],
)
def test_wrong_usage_is_exit_2_and_asks_nothing(stub: Stub, run: Run, words: tuple[str, ...]) -> None:
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr
    assert stub.asked == []


def test_a_hostile_message_is_cleaned(stub: Stub, run: Run) -> None:
    stub.on("GET", LIST, problem(500, "x", "bad \x1b[2J\x1b]0;t\x07 thing"))
    assert "bad  thing" in run("replica", "list").stderr


def test_a_read_goes_on_after_a_broken_connection(stub: Stub, run: Run) -> None:
    stub.on("GET", LIST, Answer(cut=True), Answer(body={"replicas": []}))
    assert run("replica", "list").exit_code == 0
    assert len(stub.asked) == 2


def test_a_create_is_repeated_with_the_same_idempotency_key(stub: Stub, run: Run) -> None:
    stub.on("POST", LIST, Answer(cut=True), Answer(202, {"replica_id": "r1", "task_id": "t1"}))
    assert run("replica", "create", "--model-name", "m", "-o", "name").stdout == "r1\n"
    keys = [asked.headers["idempotency-key"] for asked in stub.calls("POST", LIST)]
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_two_creates_have_two_idempotency_keys(stub: Stub, run: Run) -> None:
    stub.on("POST", LIST, Answer(202, {"replica_id": "r1", "task_id": "t1"}))
    run("replica", "create", "--model-name", "m")
    run("replica", "create", "--model-name", "m")
    assert len({asked.headers["idempotency-key"] for asked in stub.asked}) == 2


def test_503_with_a_short_retry_after_is_tried_again(stub: Stub, run: Run) -> None:
    busy = problem(503, "unavailable", "starting", headers={"Retry-After": "0"})
    stub.on("GET", LIST, busy, Answer(body={"replicas": []}))
    assert run("replica", "list").exit_code == 0


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "120"}])
def test_503_without_or_with_a_long_retry_after_is_told_at_once(stub: Stub, run: Run, headers: dict[str, str]) -> None:
    stub.on("GET", LIST, problem(503, "unavailable", "database down", headers=headers))
    assert run("replica", "list").exit_code == 1
    assert len(stub.asked) == 1


def test_a_limit_is_not_hammered(stub: Stub, run: Run) -> None:
    stub.on("POST", LIST, problem(429, "queue_full", headers={"Retry-After": "1"}))
    run("replica", "create", "--model-name", "m")
    assert len(stub.asked) == 1


def test_a_key_is_never_taken_from_the_command_line(run: Run) -> None:
    assert run("--key", "x", "health").exit_code == 2
    assert run("--api-key", "x", "health").exit_code == 2


def test_a_key_file_is_used(stub: Stub, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-a-file\n")
    stub.on("GET", LIST, Answer(body={"replicas": []}))
    run("replica", "list", "--key-file", str(file))
    assert stub.asked[0].headers["x-api-key"] == "from-a-file"


def test_an_unreadable_key_file_is_exit_4(run: Run, tmp_path: Path) -> None:
    assert run("--key-file", str(tmp_path / "none"), "replica", "list").exit_code == 4


def test_a_key_whose_text_was_lost_is_told(stub: Stub, run: Run) -> None:
    stub.on("POST", "/api/v1/keys", Answer(cut=True), Answer(201, {"id": "k1", "key": None}))
    result = run("key", "create", "ci", "--role", "operate", "-o", "json")
    assert json.loads(result.stdout) == {"id": "k1", "key": None}
    assert "hostler key delete k1" in result.stderr
