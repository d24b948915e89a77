"""The example programs, run as a reader would run them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standins import VLLM
from tests.support.stacks import Stack, stack

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    given = {"HOSTLER_VLLM_COMMAND": VLLM, "HOSTLER_NODE_GPUS": "8"}
    with stack(tmp_path_factory.mktemp("examples") / "state", **given) as started:
        started.up()
        yield started
        started.must("down")


def run(up: Stack, name: str, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        env={**up.environ, "HOSTLER_STATE_DIR": str(up.state_dir), "HOSTLER_API_KEY": "", "HOSTLER_URL": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return done


def test_these_are_the_examples() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "qdrant_simple_example",
        "qdrant_simple_example_with_metrics",
        "vllm_simple_example",
        "vllm_simple_example_with_metrics",
    }


def test_vllm(up: Stack) -> None:
    said = run(up, "vllm_simple_example", "--model", "gpt2").stdout
    assert "it serves gpt2" in said
    assert said.count("  from ") == 2
    [service] = up.json("service", "list", "--recipe", "vllm-single-node")["services"]
    assert service["desired_state"] == "cancelled"


def test_vllm_with_metrics(up: Stack) -> None:
    said = run(up, "vllm_simple_example_with_metrics").stdout
    # the replicas' own checks ask them too
    assert int(re.search(r"requests answered: (\d+)", said)[1]) >= 5  # type: ignore[index]
    assert "tokens written: 0" not in said


def test_one_that_runs_is_used_and_left(up: Stack) -> None:
    made = up.json("service", "create", "vllm-single-node", "--name", "mine", "--set", "resources.gpu=null", "--wait")
    run(up, "vllm_simple_example", "--service", "mine")
    assert up.json("service", "get", "mine")["status"] == "running"
    assert made["id"] == up.json("service", "get", "mine")["id"]
    up.must("service", "stop", "mine", "--wait", "--timeout", "60s")


@pytest.mark.parametrize("name", ["qdrant_simple_example", "vllm_simple_example_with_metrics"])
def test_what_is_not_there_is_told_plainly(up: Stack, name: str) -> None:
    done = run(up, name, "--service", "nothing", expect=3)
    assert "hostler service list" in done.stderr
    assert "Traceback" not in done.stderr


def test_qdrant(up: Stack) -> None:
    said = run(up, "qdrant_simple_example").stdout
    best = said[said.index("> ") :].splitlines()[1]
    assert "Coal and water" in best


def test_qdrant_with_metrics(up: Stack) -> None:
    said = run(up, "qdrant_simple_example_with_metrics").stdout
    assert "500 points" in said
    assert 'service="' in said
