"""What pools may say of how a host is reached."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from workers.transports.options import SSH_SCHEMA, TUNNEL_SCHEMA, SshOptions


def test_the_schemas_are_schemas() -> None:
    for schema in (SSH_SCHEMA, TUNNEL_SCHEMA):
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
