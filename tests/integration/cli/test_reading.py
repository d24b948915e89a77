"""Lists, single things, forms of output, and what a hostile text may do: nothing."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.integration.cli.conftest import KEY, Run
from tests.integration.cli.stub import Answer, Stub

NASTY = "\x1b[31mred\x1b[0m \x1b]0;title\x07\u202egpj.exe [bold]x[/bold] :smile: \x9b2J"
REPLICA = {
    "replica_id": "a1b2c3d4e5f6",
    "status": "ready",
    "reason": None,
    "message": NASTY,
    "server_mode": "replica",
    "model_name": NASTY,
    "pool": "local",
    "base_url": "http://127.0.0.1:20000",
    "created_at": "2026-01-01T00:00:00Z",
    "spec": {"labels": {"team": "x"}, "nothing": None},
}
PAGE = {"total": 1, "replicas": [REPLICA], "next_cursor": None}


@pytest.fixture
def listed(stub: Stub) -> Stub:
    stub.on("GET", "/api/v1/replicas", Answer(body=PAGE))
    stub.on("GET", "/api/v1/replicas/a1b2c3d4e5f6", Answer(body=REPLICA))
    return stub


def test_json_is_the_body_of_the_api(listed: Stub, run: Run) -> None:
    assert json.loads(run("replica", "list", "-o", "json").stdout) == PAGE
    assert json.loads(run("-o", "json", "replica", "get", "a1b2c3d4e5f6").stdout) == REPLICA


def test_yaml_is_the_same_value(listed: Stub, run: Run) -> None:
    assert yaml.safe_load(run("replica", "list", "-o", "yaml").stdout) == PAGE


def test_name_is_an_id_per_line(listed: Stub, run: Run) -> None:
    assert run("replica", "list", "-o", "name").stdout == "a1b2c3d4e5f6\n"


@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
@pytest.mark.parametrize("words", [("replica", "list"), ("replica", "get", "a1b2c3d4e5f6")])
def test_no_text_of_the_server_reaches_the_terminal_alive(
    listed: Stub, run: Run, words: tuple[str, ...], form: str
) -> None:
    said = run(*words, "-o", form).stdout
    assert not set(said) & set("\x1b\x07\x9b\u202e")


def test_the_table_shows_markup_as_it_was_written(listed: Stub, run: Run) -> None:
    lines = run("replica", "list").stdout.splitlines()
    assert lines[0].split()[:4] == ["ID", "STATUS", "REASON", "MODEL"]
    assert "red gpj.exe [bold]x[/bold] :smile:" in lines[1]


def test_a_piped_table_is_not_cut_to_a_width(stub: Stub, run: Run) -> None:
    long = "m" * 300
    stub.on("GET", "/api/v1/replicas", Answer(body={"replicas": [{**REPLICA, "model_name": long}]}))
    assert long in run("replica", "list").stdout


def test_a_single_thing_is_a_line_per_field_without_the_empty_ones(listed: Stub, run: Run) -> None:
    said = run("replica", "get", "a1b2c3d4e5f6").stdout
    assert "spec.labels.team  x" in said
    assert "reason" not in said
    assert "spec.nothing" not in said


def test_an_empty_list_says_so_on_stderr_only(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/replicas", Answer(body={"replicas": [], "next_cursor": None}))
    result = run("replica", "list")
    assert (result.stdout, result.stderr) == ("", "no replicas\n")


def test_filters_and_key_are_sent(listed: Stub, run: Run) -> None:
    run("replica", "list", "--status", "ready", "-l", "a=1", "-l", "b=2", "--model-name", "m", "--limit", "7")
    asked = listed.asked[0]
    assert asked.query == {"status": ["ready"], "label": ["a=1", "b=2"], "model_name": ["m"], "limit": ["7"]}
    assert asked.headers["x-api-key"] == KEY


def test_all_reads_every_page(stub: Stub, run: Run) -> None:
    rows = [{"id": f"t{number}", "kind": "create"} for number in range(3)]
    stub.on(
        "GET",
        "/api/v1/tasks",
        Answer(body={"tasks": rows[:2], "next_cursor": "c2"}),
        Answer(body={"tasks": rows[2:], "next_cursor": None}),
    )
    assert run("task", "list", "--all", "-o", "name").stdout.split() == ["t0", "t1", "t2"]
    assert stub.asked[1].query["cursor"] == ["c2"]


def test_a_page_that_is_not_the_last_says_how_to_go_on(stub: Stub, run: Run) -> None:
    stub.on("GET", "/api/v1/tasks", Answer(body={"tasks": [{"id": "t0"}], "next_cursor": "c2"}))
    assert "--cursor c2" in run("task", "list").stderr


def test_explain_is_a_few_lines_for_a_person(stub: Stub, run: Run) -> None:
    body = {
        "replica_id": "r1",
        "status": "pending",
        "rule": "pool_full",
        "message": "all slots are taken",
        "evidence": [{"what": "slots", "free": 0, "held_by": None}, {"used": 1}, "lease 17"],
        "since": "2026-01-01T00:00:00Z",
        "position": 3,
        "deadline": None,
        "command": "hostler pool get local",
    }
    stub.on("GET", "/api/v1/replicas/r1/explain", Answer(body=body))
    said = run("replica", "explain", "r1").stdout.splitlines()
    assert said == [
        "r1 is pending since 2026-01-01T00:00:00Z",
        "  because   all slots are taken [pool_full]",
        "  evidence  slots: free 0",
        "  evidence  used 1",
        "  evidence  lease 17",
        "  position  3",
        "  type      hostler pool get local",
    ]
    assert json.loads(run("replica", "explain", "r1", "-o", "json").stdout) == body


def test_health_of_a_degraded_stack_is_shown_and_fails(stub: Stub, run: Run) -> None:
    stub.on("GET", "/health", Answer(body={"status": "degraded", "problems": ["no worker"]}))
    result = run("health")
    assert "no worker" in result.stdout
    assert result.exit_code == 1
    assert "hostler doctor" in result.stderr
