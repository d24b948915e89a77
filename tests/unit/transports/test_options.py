"""What pools may say of a host, and paths that are called differently there."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from app.domain.path_maps import map_path
from workers.transports.options import PATH_MAP_SCHEMA, SSH_SCHEMA, SshOptions


def test_the_schemas_are_schemas() -> None:
    for schema in (SSH_SCHEMA, PATH_MAP_SCHEMA):
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
        assert schema["x-admin"]


@pytest.mark.parametrize("host", ["login", "me@login.example", "ssh://me@login:2222", "[::1]", "10.0.0.1"])
def test_destinations(host: str) -> None:
    Draft202012Validator(SSH_SCHEMA).validate({"host": host})
    assert SshOptions.of({"host": host}) == SshOptions(host, None, 10)


@pytest.mark.parametrize(
    "option",
    [
        {},
        {"host": ""},
        {"host": "-oProxyCommand=touch /tmp/pwned"},
        {"host": "a b"},
        {"host": "a\n"},
        {"host": "a;id"},
        {"host": "$(id)"},
        {"host": "a", "config": "relative"},
        {"host": "a", "connect_timeout_s": 0},
        {"host": "a", "port": 22},
    ],
)
def test_what_is_no_destination(option: dict[str, object]) -> None:
    assert list(Draft202012Validator(SSH_SCHEMA).iter_errors(option))


def test_paths_follow_whole_components_and_the_longest_folder() -> None:
    known = {"/models": "/lustre/models/", "/models/own": "/home/own", "/": "/root-of-there"}
    assert map_path("/models/a.gguf", known) == "/lustre/models/a.gguf"
    assert map_path("/models", known) == "/lustre/models"
    assert map_path("/models/own/b", known) == "/home/own/b"
    assert map_path("/modelsx", known) == "/root-of-there/modelsx"
    assert map_path("/modelsx", {"/models": "/x"}) == "/modelsx"
    assert map_path("models/a", known) == "models/a"
    assert map_path("--path=/models/a", known) == "--path=/models/a"
