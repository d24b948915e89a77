"""One suite over every registered engine, each really started. Skips come from what an engine declares of itself."""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from jsonschema import Draft202012Validator

from app.engines.base import Engine
from app.engines.dialects.base import Ask, NotSpoken, Sampling
from app.engines.registry import ENGINES, engine
from app.engines.tiny_model import write_tiny_gguf
from app.errors import InvalidConfig
from tests.support.engines import HOST, KEY, Running, running
from tests.support.upstreams import Upstream, running_upstream
from workers.probes.counters import read_counters
from workers.probes.diagnostics import run_check, run_diagnostics
from workers.probes.http import probe_once

#: What the command engine runs here: a server that it knows nothing about.
_SERVER = "import sys, http.server as h; h.test(h.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind=sys.argv[2])"
CONFIGS: dict[str, dict[str, Any]] = {
    "openai-compatible": {"base_url": "https://localhost:1/v1"},
    "command": {"command": [sys.executable, "-I", "-c", _SERVER, "{port}", "{host}"], "readiness_path": "/"},
}
#: The last is how HAProxy says that a signal ended it.
ENDED = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
Start = Callable[..., Running]


@pytest.fixture(params=sorted(ENGINES))
def subject(request: pytest.FixtureRequest) -> Engine:
    return engine(request.param)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with running_upstream(tmp_path_factory.mktemp("upstream")) as it:
        yield it


@pytest.fixture
def start(subject: Engine, model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start the engine; each start gets a folder of its own."""
    own: dict[str, Any] = dict(CONFIGS.get(subject.name, {}))
    if "base_url" in own:
        outside: Upstream = request.getfixturevalue("upstream")
        own |= {"base_url": outside.base_url, "request": outside.request}
    with ExitStack() as stack:

        def start(**more: Any) -> Running:
            file = model if subject.needs_model_file else None
            folder = tmp_path / str(len(list(tmp_path.iterdir())))
            return stack.enter_context(running(subject, folder, model=file, **more, **own))

        yield start


def test_it_is_registered_under_its_name(subject: Engine) -> None:
    assert ENGINES[subject.name] is subject
    assert subject.summary.endswith(".")


def test_its_schema_is_a_schema_and_takes_its_own_example(subject: Engine) -> None:
    Draft202012Validator.check_schema(subject.config_schema)
    assert all("description" in part for part in subject.config_schema["properties"].values())
    assert subject.validate(CONFIGS.get(subject.name, {})) == {}


def test_names_of_other_engines_are_kept_and_ignored(subject: Engine) -> None:
    assert subject.validate({"tensor_parallel_size": 2, **CONFIGS.get(subject.name, {})}) == {}


def test_public_names_are_a_part_of_those_a_user_may_set(subject: Engine) -> None:
    assert subject.public_env <= subject.user_env
    assert not {name for name in subject.user_env if name.startswith(("LD_", "PYTHON", "HOSTLER_"))}


def test_the_key_is_masked_and_in_no_argument_or_shown_value(subject: Engine, start: Start) -> None:
    command = start().command
    assert not [word for word in command.argv if KEY in word]
    holders = {name for name, value in command.env.items() if KEY in value}
    assert holders <= command.secret_env


def test_it_becomes_ready_and_passes_its_diagnostics(subject: Engine, start: Start) -> None:
    it = start()
    it.wait_ready()
    found = run_diagnostics(subject, it.config, "tiny", it.base_url, KEY, 20)
    assert found["passed"], found
    assert [check["name"] for check in found["checks"]] == [check.name for check in subject.diagnostics(it.config)]


def test_it_binds_only_the_address_it_was_given(start: Start) -> None:
    it = start()
    it.wait_ready()
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", it.port)) != 0


def test_it_refuses_a_wrong_key(subject: Engine, start: Start) -> None:
    if not subject.checks_key:
        pytest.skip(f"{subject.name} declares that it checks no key")
    it = start()
    it.wait_ready()
    guarded = [check.path for check in subject.diagnostics(it.config) if check.path != it.target().path]
    assert guarded
    for path in guarded:
        for key in ("", "wrong", KEY[:-1], f"{KEY}x"):
            assert _status(it, path, key) == 401, (path, key)
    counters = subject.counters(it.config)
    for path in {counters.path if counters else guarded[0], "/tokenize"} - subject.open_paths:
        assert _status(it, path, "") == 401, path
    assert probe_once(it.target(key="")).ok, "readiness needs no key, so that a gateway may ask it"


def test_sigterm_ends_it_promptly(start: Start) -> None:
    it = start()
    it.wait_ready()
    it.process.send_signal(signal.SIGTERM)
    assert it.wait_exit(5) in ENDED
    assert not probe_once(it.target()).ok


def test_sigterm_ends_it_while_it_starts(start: Start) -> None:
    it = start()
    it.process.send_signal(signal.SIGTERM)
    assert it.wait_exit(5) in ENDED


def test_a_taken_port_ends_it_with_a_clear_line(start: Start) -> None:
    with socket.create_server((HOST, 0)) as holder:
        it = start(port=holder.getsockname()[1])
        assert it.wait_exit(10) > 0
    assert "Address already in use" in it.log


def test_two_of_it_run_side_by_side(start: Start) -> None:
    both = start(), start()
    for it in both:
        it.wait_ready()


def test_a_missing_model_is_refused_in_words(subject: Engine, tmp_path: Path) -> None:
    if not subject.needs_model_file:
        pytest.skip(f"{subject.name} declares that it needs no model file")
    with pytest.raises(InvalidConfig, match="no file"), running(subject, tmp_path):
        pass
    with running(subject, tmp_path / "gone", model=tmp_path / "gone.gguf") as it:
        assert it.wait_exit() > 0
        assert f"cannot read model {tmp_path}/gone.gguf: No such file" in it.log


def _status(it: Running, path: str, key: str) -> int:
    body = json.dumps({"prompt": "x"}).encode() if "completions" in path else None
    asked = urllib.request.Request(it.base_url + path, data=body, headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return int(answer.status)
    except HTTPError as refused:
        with refused:
            return refused.code


def test_a_deep_probe_is_work_that_its_counters_show(subject: Engine, start: Start) -> None:
    config = CONFIGS.get(subject.name, {})
    check, counters = subject.deep_probe(config), subject.counters(config)
    if check is None:
        assert counters is None, "counters are only looked at beside a deep probe"
        return
    it = start()
    it.wait_ready()
    before = read_counters(counters, it.base_url, KEY, 5) if counters else None
    found = run_check(check, it.base_url, "tiny", KEY, time.monotonic() + 10)
    assert found["ok"], found
    if counters is None:
        return
    after = read_counters(counters, it.base_url, KEY, 5)
    assert before is not None
    assert after is not None
    assert after.finished > before.finished
    assert after.progress > before.progress


def test_its_dialect_asks_what_it_answers(subject: Engine, start: Start) -> None:
    dialect = subject.dialect(CONFIGS.get(subject.name, {}))
    if dialect is None:
        pytest.skip(f"{subject.name} declares that it has no such API")
    it = start()
    it.wait_ready()
    with suppress(NotSpoken):
        assert dialect.read_tokens(_asked(it, dialect.tokenize("tiny", "the engine")))
    sampling = Sampling(max_tokens=4, strategy="top_p", temperature=0.9, seed=-1)
    ask = dialect.generate("tiny", "the engine", sampling)
    first, again = (dialect.read_generation(_asked(it, ask)) for _ in range(2))
    assert first == again, "the same seed is the same text"
    assert first.tokens == 4
    pieces = [
        dialect.read_piece(data) for data in _events(it, dialect.generate("tiny", "the engine", sampling, stream=True))
    ]
    assert pieces[-1].done
    assert "".join(piece.text for piece in pieces) == first.text
    assert [piece.tokens for piece in pieces if piece.tokens is not None][-1] == 4


def _asked(it: Running, ask: Ask) -> Any:
    with _answer(it, ask) as answer:
        return json.load(answer)


def _events(it: Running, ask: Ask) -> list[str]:
    with _answer(it, ask) as answer:
        lines = answer.read().decode().splitlines()
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def _answer(it: Running, ask: Ask) -> Any:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    return urllib.request.urlopen(
        urllib.request.Request(it.base_url + ask.path, json.dumps(dict(ask.body)).encode(), headers), timeout=20
    )
