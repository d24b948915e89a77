"""The chat's settings at a start: what is refused before anything runs, and what its processes are not told."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.settings import BadSetting, Settings
from app.stack.chat import check_chat
from app.stack.environment import settings_environment, supervised_environment
from app.stack.runas import Account

GOOD = "0123456789abcdef0123456789abcdef"
ME = Account("me", os.geteuid(), os.getegid(), "/home/me")


@pytest.mark.parametrize(
    "key, why",
    [
        ("changeme", "everybody"),
        ("secret123", "shorter than 24"),
        ("x" * 23, "shorter than 24"),
        ("key with a space " * 2, "without a space"),
        ("schlüssel-" * 4, "ASCII"),
    ],
)
def test_a_key_that_could_be_guessed_or_sent_by_nobody_is_refused(key: str, why: str) -> None:
    with pytest.raises(BadSetting, match=why) as refused:
        check_chat(Settings.load({"API_KEY": key}))
    assert str(refused.value).startswith("API_KEY")
    assert "openssl rand" in str(refused.value), "it says what to do"
    assert key not in str(refused.value) or key == "changeme"


def test_a_key_that_is_the_admins_is_refused() -> None:
    with pytest.raises(BadSetting, match="role is admin"):
        check_chat(Settings.load({"API_KEY": GOOD, "HOSTLER_API_KEY": GOOD}))


def test_a_door_beyond_this_host_wants_a_longer_key(tmp_path: Path) -> None:
    reachable = Settings.load({"API_KEY": GOOD[:24], "HOSTLER_HOST": "0.0.0.0"})
    with pytest.raises(BadSetting, match="32"):
        check_chat(reachable)
    check_chat(replace(reachable, chat_key=GOOD))
    check_chat(replace(reachable, host="127.0.0.1"))
    check_chat(replace(reachable, tls_certificate=str(tmp_path)))


def test_a_model_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("not a model")
    for path, why in ((tmp_path / "none.gguf", "No such file"), (tmp_path / "text.gguf", "no GGUF"), (tmp_path, "dir")):
        with pytest.raises(BadSetting, match=f"^LLM_MODEL_PATH.*{why}"):
            check_chat(Settings.load({"LLM_MODEL_PATH": str(path)}))
    (tmp_path / "good.gguf").write_bytes(b"GGUF and more")
    check_chat(Settings.load({"LLM_MODEL_PATH": str(tmp_path / "good.gguf"), "API_KEY": GOOD}))


def test_without_its_settings_there_is_no_chat_to_check() -> None:
    check_chat(Settings.load({}))


def test_its_key_reaches_no_process_and_its_other_names_none_either(tmp_path: Path) -> None:
    given = {"API_KEY": GOOD, "LLM_WORKERS": "2", "LOG_LEVEL": "DEBUG", "LLM_BIN_PATH": "/b/llama-server", "PATH": "/p"}
    settings = Settings.load({**given, "HOSTLER_LOG_LEVEL": "info"}, state_dir=tmp_path)
    environ = supervised_environment(settings, ME, given)
    assert GOOD not in environ.values()
    assert not {"API_KEY", "LLM_WORKERS", "LOG_LEVEL", "LLM_BIN_PATH"} & set(environ)
    assert Settings.load(environ).log_level == "info", "what was said by our name counts in the processes too"
    assert Settings.load(environ).llama_command == "/b/llama-server"
    assert Settings.load(settings_environment(settings)) == replace(settings, chat_key="")
