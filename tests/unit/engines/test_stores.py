"""How the two engines of Qdrant's API are started: one folder, one process, the key nowhere to be read."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from app.engines.base import EngineRequest
from app.engines.registry import STORES, engine
from app.errors import InvalidConfig

REQUEST = EngineRequest(
    model_name="documents",
    model_path=None,
    host="127.0.0.1",
    port=20001,
    engine_key="the-key",
    program=("/opt/qdrant/qdrant", "--more"),
    data_dir=Path("/state/data/0123456789ab"),
)


def test_which_engines_serve_no_model() -> None:
    assert STORES == ("qdrant", "qdrant-edge")
    assert all(engine(name).keeps_data for name in STORES)


@pytest.mark.parametrize("name", STORES)
def test_the_folder_is_locked_before_anything_of_it_is_opened(name: str) -> None:
    argv = engine(name).command(REQUEST).argv
    assert argv[:3] == (sys.executable, "-I", "-S")
    assert argv[3].endswith("/programs/locked_storage.py")
    assert argv[4:6] == ("/state/data/0123456789ab", "300")


@pytest.mark.parametrize("name", STORES)
def test_without_a_folder_there_is_no_store(name: str) -> None:
    with pytest.raises(InvalidConfig, match="nobody said where"):
        engine(name).command(replace(REQUEST, data_dir=None))


def test_qdrant_gets_its_settings_by_environment() -> None:
    config = {"log_level": "WARN", "on_disk_payload": False, "max_workers": 2.0}
    command = engine("qdrant").command(replace(REQUEST, config=config, environment={"TZ": "UTC"}))
    assert command.argv[6:] == ("/opt/qdrant/qdrant", "--more", "--config-path", "{folder}/qdrant.yaml")
    assert command.env == {
        "TZ": "UTC",
        "QDRANT__LOG_LEVEL": "WARN",
        "QDRANT__STORAGE__ON_DISK_PAYLOAD": "false",
        "QDRANT__SERVICE__MAX_WORKERS": "2",
        "QDRANT__SERVICE__HOST": "127.0.0.1",
        "QDRANT__SERVICE__HTTP_PORT": "20001",
        "QDRANT__SERVICE__API_KEY": "the-key",
        "QDRANT__SERVICE__ENABLE_CORS": "false",
        "QDRANT__STORAGE__STORAGE_PATH": "/state/data/0123456789ab/storage",
        "QDRANT__STORAGE__SNAPSHOTS_PATH": "/state/data/0123456789ab/snapshots",
        "QDRANT__CLUSTER__ENABLED": "false",
        "QDRANT__TELEMETRY_DISABLED": "true",
    }
    assert command.secret_env == {"QDRANT__SERVICE__API_KEY"}
    # two of them on a host would have the same port for gRPC
    assert json.loads(command.files["qdrant.yaml"]) == {"service": {"grpc_port": None}}


def test_what_is_missing_is_told_with_where_to_get_it() -> None:
    said = "storage: cannot run qdrant: No such file or directory\n"
    cause = engine("qdrant").cause_of_exit(said)
    assert cause is not None
    assert cause.kind == "launch_failed"
    assert "HOSTLER_QDRANT_COMMAND" in cause.message
    waits = "storage: waits for /state/data/x, which another process has open\n"
    assert engine("qdrant").cause_of_exit(waits) is None
    taken = engine("qdrant-edge").cause_of_exit(f"{waits}storage: another process has /x open. Stop it.\n")
    assert taken is not None
    assert taken.message == "another process has /x open. Stop it."
