"""Every member of every engine's config, with values that no good client sends: planned, or refused by its field."""

from __future__ import annotations

from typing import Any

import pytest

from app.engines.registry import ENGINES
from app.engines.tiny_model import write_tiny_gguf
from app.settings import Settings
from tests.integration.api.conftest import Caller

NEEDED: dict[str, dict[str, Any]] = {
    "command": {"command": ["serve"]},
    "openai-compatible": {"base_url": "https://api.example.com/v1"},
}
HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 1.0, 1.5, 2**31, 2**53, 2**63 - 1, 1e300, -1e300, "", "-", "--trust-remote-code",
    "x" * 100_000, "a\nb", "a\0b", "../../../etc/passwd", "/etc/passwd", "${HOSTLER_ENGINE_KEY}", "{folder}",
    "%[env(X)]", "🐎", "\ud800", [], {}, ["--port=1"], [["x"]], {"a": {"b": []}}, {"": -1}, [None],
    "https://user@host/", "$(id)",
]  # fmt: skip
CASES = [(name, member) for name, one in ENGINES.items() for member in one.config_schema["properties"]]


@pytest.fixture
def planner(admin: Caller, web_settings: Settings) -> Caller:
    write_tiny_gguf(web_settings.models_dir / "tiny.gguf")
    for name in ENGINES:
        body = {"name": f"model-of-{name}", "engine": name, "defaults": NEEDED.get(name, {})}
        body["source"] = {"llama-cpp": "tiny.gguf", "vllm": "gpt2", "sglang": "gpt2"}.get(name, "")
        made = admin.post("/api/v1/models", body)
        assert made.status_code == 201, made.get_json()
    return admin


@pytest.mark.parametrize("name, member", CASES)
def test_a_hostile_value_is_planned_or_refused_and_breaks_nothing(planner: Caller, name: str, member: str) -> None:
    for value in HOSTILE:
        asked = {
            "server_mode": "replica",
            "model_name": f"model-of-{name}",
            "replica_config": {member: value},
            "dry_run": True,
        }
        answer = planner.post("/api/v1/replicas", asked)
        told = answer.get_json()
        assert answer.status_code in (200, 400, 403, 422), (value, told)
        if answer.status_code != 200:
            assert told["code"] in ("malformed", "invalid_config", "forbidden"), told
            continue
        if name != "command":
            assert not [word for word in told["argv"] if "\n" in word or "\0" in word], told["argv"]
            assert not [word for word in told["argv"] if word == value and word.startswith("-")], told["argv"]


def test_a_nested_config_is_no_way_round(planner: Caller) -> None:
    odd: list[dict[str, Any]] = [{"replica_config": []}, {"replica_config": "x"}, {"backend_options": "x"}]
    for config in odd:
        asked = {"server_mode": "replica", "model_name": "model-of-vllm", "replica_config": config, "dry_run": True}
        answer = planner.post("/api/v1/replicas", asked)
        assert answer.status_code in (200, 400, 422), answer.get_json()
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"replica_config": deep}
    asked = {"server_mode": "replica", "model_name": "model-of-vllm", "replica_config": deep, "dry_run": True}
    assert planner.post("/api/v1/replicas", asked).status_code in (200, 400, 422)


def test_whole_numbers_stay_whole_however_they_are_written(planner: Caller) -> None:
    asked = {"server_mode": "replica", "model_name": "model-of-vllm", "dry_run": True}
    answer = planner.post("/api/v1/replicas", {**asked, "replica_config": {"max_num_seqs": 8.0}})
    argv = answer.get_json()["argv"]
    assert argv[argv.index("--max-num-seqs") + 1] == "8"


@pytest.mark.parametrize("name", ENGINES)
def test_a_hostile_source_is_taken_or_refused_and_breaks_nothing(planner: Caller, name: str) -> None:
    sources = [
        "/a\0b",
        "./\0",
        "/\ud800",
        "./🐎",
        "/" + "x" * 5000,
        "/" + "x/" * 3000,
        "..",
        ".",
        "/proc/self/environ",
        "//",
    ]
    for number, source in enumerate([*sources, *(value for value in HOSTILE if not isinstance(value, str))]):
        body = {"name": f"m{number}", "engine": name, "source": source, "defaults": NEEDED.get(name, {})}
        answer = planner.post("/api/v1/models", body)
        assert answer.status_code in (201, 400, 403, 422), (source, answer.get_json())
        for defaults in ([], "x", 3, {"replica_config": 1}, {"": {}}):
            answer = planner.post("/api/v1/models", {**body, "name": f"n{number}", "source": "", "defaults": defaults})
            assert answer.status_code in (201, 400, 403, 409, 422), (defaults, answer.get_json())
