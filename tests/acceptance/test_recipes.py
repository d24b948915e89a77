"""Recipes on a whole stack: by command line, with secrets of files, and with files that break while it runs."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from app.settings import Settings
from app.stack.urls import database_url
from tests.standins import VLLM
from tests.support.stacks import Stack, stack

TOKEN = "tok_4711-not-for-anybody"
#: Says its secret at its start, as careless servers do, and serves.
CARELESS = f"""
engine: command
command:
  - {sys.executable}
  - -c
  - |
    import http.server, os, sys
    print("my token is", os.environ["LAB_TOKEN"], flush=True)
    http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
  - "{{port}}"
readiness: {{path: /}}
secrets: {{LAB_TOKEN: {{file: lab-token}}}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    top = tmp_path_factory.mktemp("recipes")
    for name, mode in (("own", 0o755), ("secrets", 0o700)):
        (top / name).mkdir(mode=mode)
    top.chmod(0o755)
    given = {
        "HOSTLER_RECIPES_DIR": str(top / "own"),
        "HOSTLER_SECRETS_DIR": str(top / "secrets"),
        "HOSTLER_VLLM_COMMAND": VLLM,
        "HOSTLER_NODE_GPUS": "4",
    }
    with stack(top / "state", **given) as started:
        started.up()
        yield started
        started.must("down")


def write(made: Stack, name: str, text: str) -> Path:
    path = Path(made.environ["HOSTLER_RECIPES_DIR"]) / f"{name}.yaml"
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_the_commands(made: Stack, tmp_path: Path) -> None:
    assert "inference/vllm-single-node" in made.must("recipe", "list", "-o", "name").split()
    assert "VLLM_MAX_MODEL_LEN" in made.must("recipe", "show", "vllm-single-node")
    arguments = ("--set", "environment.VLLM_MODEL=gpt2", "--set", "resources.gpu=null", "-o", "json")
    shown = json.loads(made.must("recipe", "render", "vllm-single-node", *arguments))
    assert (shown["replica"]["model_name"], shown["replica"]["resources"]["gpus"]) == ("gpt2", 0)
    refused = made.hostler("recipe", "render", "vllm-single-node", "--set", "resources.gpuu=1")
    assert (refused.returncode, "Did you mean gpu?" in refused.stderr) == (2, True)
    assert made.hostler("recipe", "show", "nothing").returncode == 3
    schema = json.loads(made.must("recipe", "schema"))
    assert schema == made.call("GET", "/api/v1/schemas/recipe.json")
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("name: good\ncategory: any\nengine: mock\n")
    bad.write_text("engine: mock\nengien: mock\n")
    assert made.must("recipe", "validate", str(good)).strip() == f"{good}: ok"
    checked = made.hostler("recipe", "validate", str(good), str(bad), "-o", "json")
    assert (checked.returncode, json.loads(checked.stdout)["valid"]) == (2, False)
    assert "engien" in checked.stdout


def test_replicas_by_recipes(made: Stack) -> None:
    said = made.must("replica", "create", "--recipe", "inference/mock", "--set", "parameters.seed=7", "--wait")
    replica_id = said.split()[0]
    shown = made.call("GET", f"/api/v1/replicas/{replica_id}")
    assert (shown["status"], shown["spec"]["recipe"]) == ("ready", "inference/mock")
    assert shown["spec"]["replica_config"] == {"mock": {"seed": 7}}
    body = {
        "recipe": "vllm-single-node",
        "environment": {"VLLM_MODEL": "gpt2", "VLLM_MAX_MODEL_LEN": "2048", "VLLM_PORT": "8001"},
        "resources": {"cpu": "2", "memory": "32G", "time_limit": 15, "gpu": "4"},
    }
    ready = made.call("POST", "/api/v1/replicas", body, 201)
    assert (ready["status"], ready["model_name"], ready["port"] != 8001) == ("ready", "gpt2", True)
    assert [warning.split()[0] for warning in ready["warnings"]] == ["VLLM_PORT"]
    assert ready["lifetime_ends_at"] is not None
    for one in (replica_id, ready["replica_id"]):
        made.must("replica", "stop", one, "--wait")


def test_a_secret_is_read_where_it_is_launched_and_kept_nowhere(made: Stack, tmp_path: Path) -> None:
    write(made, "lab/careless", CARELESS)
    body = {"recipe": "lab/careless", "wait_for_ready": True}
    missing = made.call("POST", "/api/v1/replicas", body, 502)
    path = Path(made.environ["HOSTLER_SECRETS_DIR"]) / "lab-token"
    assert missing["reason"] == "invalid_config"
    assert f"the secret LAB_TOKEN (file {path} on {socket.gethostname().split('.')[0]})" in missing["detail"]
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o644)
    assert "chmod 600" in made.call("POST", "/api/v1/replicas", body, 502)["detail"]
    path.chmod(0o600)
    ready = made.call("POST", "/api/v1/replicas", body, 201)
    replica_id = ready["replica_id"]
    assert "my token is ***" in made.must("replica", "logs", replica_id)
    assert TOKEN not in json.dumps(made.call("GET", f"/api/v1/replicas/{replica_id}"))
    rendered = made.must("recipe", "render", "careless", "-o", "json")
    assert TOKEN not in rendered
    assert json.loads(rendered)["plan"]["environment"]["LAB_TOKEN"] == "***"
    running = [
        one for one in made.living() if "http.server" in " ".join(one.cmdline()) and one.environ().get("LAB_TOKEN")
    ]
    assert running
    assert not [one for one in made.living() if TOKEN in " ".join(one.cmdline())]
    made.must("replica", "stop", replica_id, "--wait")
    settings = Settings.load({}, state_dir=made.state_dir)
    with psycopg.connect(database_url(settings).replace("+psycopg", "")) as connection:
        tables = [name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        for table in tables:
            [found] = connection.execute(f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", [f"%{TOKEN}%"])
            assert found == (0,), table


def test_a_file_that_breaks_is_told_of_and_serves_as_it_was_also_after_a_restart(made: Stack) -> None:
    write(made, "lab/one", 'engine: mock\nversion: "1"\n')
    assert made.call("GET", "/api/v1/recipes/lab/one")["version"] == "1"
    write(made, "lab/one", "engine: mock\nversion: [\n")
    listed = made.must("recipe", "list", "--name", "one")
    assert "broken" in listed
    findings = {one["check"]: one for one in json.loads(made.must("doctor", "-o", "json"))}
    assert findings["recipes"]["result"] == "warn"
    assert "lab/one (its last good version serves): line" in findings["recipes"]["detail"]
    made.must("down", "--keep-replicas")
    made.up()
    served = made.call("GET", "/api/v1/recipes/lab/one")
    assert (served["state"], served["version"]) == ("broken", "1")
    replica_id = made.must("replica", "create", "--recipe", "lab/one", "--wait").split()[0]
    made.must("replica", "stop", replica_id, "--wait")
    write(made, "lab/one", 'engine: mock\nversion: "2"\n')
    assert made.call("GET", "/api/v1/recipes/lab/one")["version"] == "2"
    assert made.must("doctor").count("every recipe's file can be served") == 1
    log = made.layout.logs / "web.log"
    assert log.read_text().count("its last good version serves") == 2
