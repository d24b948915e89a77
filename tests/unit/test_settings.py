"""Every setting: what can be is taken, what cannot is refused before anything starts, and by its name."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from app.settings import BadSetting, Settings, env_name

CANNOT = {
    "HOSTLER_DATABASE_URL": ("nonsense", "mysql://a/b"),
    "HOSTLER_BROKER_URL": ("nonsense", "http://a", "memory://x"),
    "HOSTLER_NAMESPACE": ("a b", "a:b", "x" * 61),
    "HOSTLER_HOST": ("a b", "a/b"),
    "HOSTLER_PORT": ("0", "-1", "65536", "http", "1.5"),
    "HOSTLER_ENGINE_KEY": ("short", "with a space in the middle of it"),
    "HOSTLER_SECRET_KEY": ("short", "x" * 44),
    "HOSTLER_DEFAULT_POOL": ("!!", "Upper", "-a"),
    "HOSTLER_PORTS": ("0-1", "5-1", "a-b", "1-70000", "-"),
    "HOSTLER_NODE_NAME": ("a/b", "a b", "-"),
    "HOSTLER_NODE_ADDRESS": ("0.0.0.0", "::", "fe80::1", "224.0.0.1", "a b", "host:80", "http://a", "-a", "10.0.0.256"),
    "HOSTLER_NODE_POOLS": ("A", "a b", "a,", ",a", "a,,b", "-a", "a;b"),
    "HOSTLER_NODE_GPUS": ("-2", "x"),
    "HOSTLER_MAX_WAIT_S": ("-1", "nan", "inf", "x"),
    "HOSTLER_MAX_QUEUED_PER_POOL": ("-1", "1.5"),
    "HOSTLER_MAX_BODY_BYTES": ("0", "1"),
    "HOSTLER_BATCH_CONCURRENCY": ("0", "257"),
    "HOSTLER_WEB_WORKERS": ("0", "-1", "many"),
    "HOSTLER_WORKER_CONCURRENCY": ("0",),
    "HOSTLER_CONTROL_CONCURRENCY": ("0",),
    "HOSTLER_TASK_EVENTS": ("maybe",),
    "HOSTLER_FLOWER_PORT": ("-1", "65536"),
    "HOSTLER_MAX_BODY": ("0", "-1", "x"),
    "HOSTLER_GATEWAY_THREADS": ("-1", "1000"),
    "HOSTLER_GATEWAY_CONNECTIONS": ("-1", "many"),
    "HOSTLER_GATEWAY_BUFFER_BYTES": ("0", "1000", "x"),
    "HOSTLER_GATEWAY_CONNECT_S": ("0", "nan", "61"),
    "HOSTLER_GATEWAY_QUEUE": ("-1", "x"),
    "HOSTLER_GATEWAY_QUEUE_S": ("0", "nan"),
    "HOSTLER_GATEWAY_FIRST_BYTE_S": ("0", "nan"),
    "HOSTLER_GATEWAY_IDLE_S": ("-1", "nan"),
    "HOSTLER_GATEWAY_TOTAL_S": ("-1", "nan"),
    "HOSTLER_GATEWAY_TUNNEL_S": ("0", "nan"),
    "HOSTLER_GATEWAY_RETRIES": ("-1", "21"),
    "HOSTLER_GATEWAY_CHECK_S": ("0", "nan"),
    "HOSTLER_GATEWAY_ERROR_LIMIT": ("0",),
    "HOSTLER_GATEWAY_FALL": ("0",),
    "HOSTLER_GATEWAY_ALL_OUT": ("hope",),
    "HOSTLER_SLOW_LANE_BYTES": ("0", "-1"),
    "HOSTLER_SLOW_LANE_QUEUE": ("-1",),
    "HOSTLER_SLOW_LANE_BODY_S": ("0", "nan"),
    "HOSTLER_GATEWAY_SILENCE_S": ("-1", "nan"),
    "HOSTLER_DRAIN_S": ("-1", "nan"),
    "HOSTLER_LEASE_S": ("0", "-1", "nan"),
    "HOSTLER_PROBE_INTERVAL_S": ("0", "nan"),
    "HOSTLER_UNHEALTHY_AFTER": ("0",),
    "HOSTLER_DEEP_PROBE_S": ("-1", "nan"),
    "HOSTLER_ORPHANS": ("eat",),
    "HOSTLER_SWEEP_INTERVAL_S": ("0", "nan"),
    "HOSTLER_LOOK_S": ("-1",),
    "HOSTLER_GATEWAY_ROUTES": ("0", "10001", "1.5"),
    "HOSTLER_LOG_BYTES": ("-1", "0"),
    "HOSTLER_REGISTER_ALLOW": ("10.0.0.0/33", "10.0.0.1/8", "127.1", "a b", "http://a", "a;b"),
    "HOSTLER_REGISTER_LEASE_S": ("0", "nan"),
    "HOSTLER_REGISTER_GRACE_S": ("-1", "nan"),
    "HOSTLER_MAX_REGISTRATIONS": ("-1", "1.5"),
    "HOSTLER_RETENTION_DAYS": ("-1", "0", "inf"),
    "HOSTLER_LOG_LEVEL": ("loud",),
    "HOSTLER_LOG_FORMAT": ("xml",),
    "HOSTLER_EXTERNAL_ALLOW": ("10.0.0.0/33", "a b", "*.example.com"),
    "HOSTLER_HF_ENDPOINT": ("hub", "ftp://hub", "https://name:word@hub", "https://hub?a=b"),
    "HOSTLER_HF_TOKEN": ("with a space",),
    "HOSTLER_VLLM_COMMAND": (" ", 'vllm "serve'),
    "HOSTLER_SGLANG_COMMAND": ("python -m 'sglang",),
    "HOSTLER_QDRANT_COMMAND": (" ", "'qdrant"),
    "HOSTLER_LLAMA_COMMAND": (" ", "'llama-server", "/opt/llama.cpp/bin/llama-cli"),
    "HOSTLER_CHAT_SERVICE": ("Upper", "-a", "a b", "x" * 64),
    "HOSTLER_CHAT_WORKERS": ("-1", "two", "1001"),
    "HOSTLER_CHAT_RATE": ("-1", "nan", "many"),
    "HOSTLER_CORS_ORIGINS": ("null", "app.example", "https://a/path", "https://a,*", "https://*.a", "https://a:0", "'"),
}
#: Any path or text is one.
FREE = {
    "state_dir",
    "external_ca",
    "models_dir",
    "recipes_dir",
    "secrets_dir",
    "url",
    "api_key",
    "chat_key",
    "chat_model_path",
    "default_model",
    "tls_certificate",
    "tls_key",
    "haproxy",
}


@pytest.mark.parametrize("name,raw", [(name, raw) for name, values in CANNOT.items() for raw in values])
def test_what_cannot_be_is_refused_by_name(name: str, raw: str) -> None:
    with pytest.raises(BadSetting, match=name):
        Settings.load({name: raw})


def test_each_setting_has_its_limits() -> None:
    assert {env_name(item.name) for item in fields(Settings) if item.name not in FREE} == set(CANNOT)


def test_a_secret_is_refused_without_being_shown() -> None:
    for name, raw in (("HOSTLER_SECRET_KEY", "hunter2"), ("HOSTLER_DATABASE_URL", "hunter2@host/db")):
        with pytest.raises(BadSetting) as refused:
            Settings.load({name: raw})
        assert "hunter2" not in str(refused.value)


def test_arguments_have_the_same_limits() -> None:
    for given in ({"port": 0}, {"host": ""}, {"lease_s": float("nan")}):
        with pytest.raises(BadSetting):
            Settings.load({}, **given)


def test_what_can_be_is_taken() -> None:
    given = {
        "HOSTLER_DATABASE_URL": "postgres://u:p@h/d",
        "HOSTLER_BROKER_URL": "amqp://u:p@h//",
        "HOSTLER_HOST": "::1",
        "HOSTLER_PORTS": "30000",
        "HOSTLER_MAX_WAIT_S": "2.5",
        "HOSTLER_TASK_EVENTS": "off",
        "HOSTLER_LOG_LEVEL": "debug",
        "HOSTLER_NODE_NAME": "node-01.rack_2",
    }
    settings = Settings.load(given)
    assert (settings.ports, settings.max_wait_s, settings.task_events) == ((30000, 30000), 2.5, False)
    assert Settings.load({"HOSTLER_PORT": ""}).port == 8080


def test_a_program_that_is_written_as_a_path_is_found_from_where_it_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for said, meant in (
        ("bin/vllm serve --x 'a b'", f"{tmp_path}/bin/vllm serve --x 'a b'"),
        ("~/vllm serve", f"{Path.home()}/vllm serve"),
        ("vllm serve", "vllm serve"),
    ):
        assert Settings.load({"HOSTLER_VLLM_COMMAND": said}).vllm_command == meant


def test_variables_of_others_are_read_where_ours_are_not_set() -> None:
    theirs = {"HF_ENDPOINT": "http://hub", "HF_TOKEN": "hf_secret"}
    found = Settings.load(theirs)
    assert (found.hf_endpoint, found.hf_token) == ("http://hub", "hf_secret")
    assert "hf_secret" not in repr(found)
    assert Settings.load({**theirs, "HOSTLER_HF_ENDPOINT": "http://ours"}).hf_endpoint == "http://ours"


def test_the_chats_own_names_mean_the_same() -> None:
    given = {
        "LLM_MODEL_PATH": "models/gemma.gguf",
        "LLM_BIN_PATH": "/opt/my llama/llama-server",
        "LLM_WORKERS": "2",
        "API_KEY": "a-key-of-24-characters-or-more",
        "RATE_LIMIT_QPS": "2.5",
        "LOG_LEVEL": "WARNING",
    }
    settings = Settings.load(given)
    assert settings.chat_model_path == Path.cwd() / "models/gemma.gguf"
    assert shlex.split(settings.llama_command) == ["/opt/my llama/llama-server"]
    assert (settings.chat_workers, settings.chat_rate, settings.log_level) == (2, 2.5, "warning")
    assert settings.chat_key == "a-key-of-24-characters-or-more"
    assert settings.chat_key not in repr(settings)


def test_ours_goes_before_another_programs_name() -> None:
    settings = Settings.load({"LLM_WORKERS": "2", "HOSTLER_CHAT_WORKERS": "3", "LOG_LEVEL": "DEBUG"}, log_level="error")
    assert (settings.chat_workers, settings.log_level) == (3, "error")
    assert Settings.load({"LLM_WORKERS": "", "LOG_LEVEL": ""}).chat_workers == 0


@pytest.mark.parametrize(
    "name, raw",
    [
        ("LLM_WORKERS", "-1"),
        ("LLM_WORKERS", "two"),
        ("RATE_LIMIT_QPS", "-1"),
        ("LOG_LEVEL", "loud"),
        ("LLM_BIN_PATH", "vendor/llama.cpp/build-cuda/bin/llama-cli"),
    ],
)
def test_a_bad_value_is_told_under_the_name_it_came_by(name: str, raw: str) -> None:
    with pytest.raises(BadSetting, match=f"^{name}"):
        Settings.load({name: raw})
