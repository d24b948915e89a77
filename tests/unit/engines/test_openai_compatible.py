"""What a base_url may be, and what the relay's configuration says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.endpoints import Endpoint
from app.domain.placeholders import HOST_LATER, PORT_LATER, put_address
from app.engines.base import EngineRequest
from app.engines.registry import engine
from app.errors import InvalidConfig

IT = engine("openai-compatible")
REQUEST = EngineRequest("m", None, "127.0.0.1", 20001, engine_key="the-engine-key")


def _config(base_url: str, **more: Any) -> str:
    plan = IT.command(replace(REQUEST, config={"base_url": base_url}, **more))
    return plan.files["relay.cfg"]


@pytest.mark.parametrize(
    "base_url, endpoint",
    [
        ("https://api.example.com/v1", Endpoint("api.example.com", 443)),
        ("https://API.example.com./v1/", Endpoint("api.example.com", 443)),
        ("http://10.0.0.7:8000", Endpoint("10.0.0.7", 8000)),
        ("https://[2001:db8::1]:8443/a/v1", Endpoint("2001:db8::1", 8443)),
    ],
)
def test_a_base_url_is_what_a_client_would_be_given(base_url: str, endpoint: Endpoint) -> None:
    assert IT.validate({"base_url": base_url}) == {}
    assert IT.upstream({"base_url": base_url}) == endpoint


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "api.example.com/v1",
        "ftp://api.example.com",
        "unix:///run/x.sock",
        "https://",
        "https:///v1",
        "https://user:secret@api.example.com/v1",
        "https://@api.example.com/v1",
        "https://api.example.com:99999/v1",
        "https://api.example.com:0/v1",
        "https://api.example.com:x/v1",
        "https://api.example.com/v1?key=1",
        "https://api.example.com/v1?",
        "https://api.example.com/v1#x",
        "https://api.example.com/../admin",
        "https://api.example.com/v1//x",
        "https://api.example.com/v1\nserver evil 1.2.3.4:1",
        "https://api.example.com\n/v1",
        "https://api.exa\tmple.com/v1",
        " https://api.example.com/v1",
        'https://api.example.com/"x',
        "https://api.example.com/%0a",
        "https://api_example com/v1",
        "https://0x7f000001/v1",
        "https://127.1/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://bücher.example/v1",
        "https://api.example.com/${HOSTLER_ENGINE_KEY}",
        "https://{folder}/v1",
    ],
)
def test_what_is_no_plain_address_is_refused_by_its_field(base_url: str) -> None:
    assert list(IT.validate({"base_url": base_url})) == ["base_url"]


@pytest.mark.parametrize("path", ["v1", "/a b", "/a\nb", "/..", "/%2e", "/a?b", '/"', "/a//b"])
def test_a_ready_path_is_a_plain_path(path: str) -> None:
    assert list(IT.validate({"base_url": "https://a.example", "ready_path": path})) == ["ready_path"]


@pytest.mark.parametrize("name", ["api_key", "token", "upstream-secret", "key", "Authorization"])
def test_a_key_in_the_config_is_refused_and_not_ignored(name: str) -> None:
    told = IT.validate({"base_url": "https://a.example", name: "sk-secret"})
    assert list(told) == [name]
    assert "UPSTREAM_API_KEY" in told[name][0]
    assert "sk-secret" not in str(told)


def test_https_is_verified_by_name_and_follows_dns_and_http_stays_where_it_was_found() -> None:
    safe = _config("https://api.example.com/v1", addresses=("192.0.2.1", "192.0.2.2"))
    assert "ssl verify required ca-file @system-ca verifyhost api.example.com" in safe
    assert "sni str(api.example.com)" in safe
    assert "resolvers dns resolve-prefer ipv4 init-addr 192.0.2.1,libc,none" in safe
    plain = _config("http://api.example.com/v1", addresses=("192.0.2.1", "192.0.2.2"))
    assert "resolvers" not in plain
    assert "server at0 192.0.2.1:80 " in plain
    assert "server at1 192.0.2.2:80 " in plain
    with pytest.raises(InvalidConfig, match="cannot be looked up"):
        _config("http://api.example.com/v1", addresses=())


def test_where_it_listens_may_be_found_later() -> None:
    written = _config("https://api.example.com", host=HOST_LATER, port=PORT_LATER)
    assert "bind 10.0.0.7:20002\n" in put_address(written, "10.0.0.7", 20002)


def test_the_file_holds_no_secret_and_the_key_goes_by_environment() -> None:
    environment = {"UPSTREAM_API_KEY": "the%[external]key"}
    plan = IT.command(replace(REQUEST, config={"base_url": "https://a.example"}, environment=environment))
    assert plan.env == environment
    assert plan.secret_env == {"UPSTREAM_API_KEY"}
    for secret in ("the%[external]key", "the-engine-key"):
        assert secret not in "".join([*plan.argv, *plan.files.values()])


@pytest.mark.parametrize("key", ["a b", "a\r\nX-Evil: 1", "schlüssel", "x" * 5000])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidConfig, match="no header can carry it"):
        _config("https://a.example", environment={"UPSTREAM_API_KEY": key})


def test_without_a_key_none_is_sent() -> None:
    assert "UPSTREAM_API_KEY)]" not in _config("https://a.example")


def test_diagnostics_ask_for_what_costs_only_when_told_to() -> None:
    def names(**config: Any) -> list[str]:
        return [check.name for check in IT.diagnostics({"base_url": "https://a.example", **config})]

    assert names() == names(diagnostics="models") == ["health", "models"]
    assert names(diagnostics="chat") == ["health", "models", "chat"]
