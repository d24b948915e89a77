"""Where the command is run: closed streams, a full disk, a pipe whose reader left, bytes that are no text."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.integration.cli.conftest import KEY, Run
from tests.integration.cli.stub import Answer, Stub

ROWS = {"pools": [{"name": f"pool-{number}", "state": "active", "labels": {"a": "é🚂"}} for number in range(2000)]}


@pytest.fixture
def pools(stub: Stub) -> Stub:
    stub.on("GET", "/api/v1/pools", Answer(body=ROWS))
    return stub


def shell(stub: Stub, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """``script`` in sh, where ``$H`` is the command."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    own = {"H": f"{sys.executable} -P -m hostler", "HOSTLER_URL": stub.url, "HOSTLER_API_KEY": KEY}
    return subprocess.run(
        ["sh", "-c", script], env=inherited | own | environ, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("output", ["table", "json", "yaml", "name"])
def test_a_full_disk_is_told(pools: Stub, output: str) -> None:
    done = shell(pools, f"$H pool list -o {output} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the output: No space left on device\n"


def test_help_on_a_full_disk(stub: Stub) -> None:
    done = shell(stub, "$H --help >/dev/full")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


def test_a_reader_that_leaves_ends_it_quietly(pools: Stub) -> None:
    done = shell(pools, "$H pool list | head -n 1")
    assert done.stdout.startswith("NAME")
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams(pools: Stub, closed: str) -> None:
    done = shell(pools, f"$H pool list {closed}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("NAME") is (">&-" not in closed.replace("2>&-", ""))
    assert shell(pools, "$H pool create -f - <&-").returncode == 2


@pytest.mark.parametrize(
    "words", ["replica get \"$(printf '\\377')\"", "pool create x --backend mock --label \"a=$(printf '\\377')\""]
)
def test_bytes_that_are_no_text_are_a_usage_error(stub: Stub, words: str) -> None:
    done = shell(stub, f"$H {words}")
    assert done.returncode == 2
    assert "no text" in done.stderr
    assert stub.asked == []


def test_a_locale_that_cannot_show_it(pools: Stub) -> None:
    for form in ("table", "json", "yaml"):
        done = shell(pools, f"$H pool list -o {form} | wc -l", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert done.stderr == ""
        assert int(done.stdout) >= 2000


def test_what_is_removed_is_an_empty_body_as_json(stub: Stub, run: Run) -> None:
    for noun in ("pool", "model", "key", "replica"):
        stub.on("DELETE", f"/api/v1/{noun}s/x", Answer(204))
        assert json.loads(run(noun, "delete", "x", "-o", "json").stdout) == {}
        assert run(noun, "delete", "x").stdout == "x\n"


def test_a_written_model_as_json(run: Run) -> None:
    made = json.loads(run("model", "make-tiny", "t", "-o", "json").stdout)
    assert made["name"] == "t"
    assert os.path.exists(made["path"])
