"""What may be registered, and what may not in whatever disguise."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.endpoints import Endpoint, forbidden_kind, parse_allowance, parse_endpoint, preferred, refusal

DEFAULT = "127.0.0.0/8,::1,localhost"
EVERYTHING = "0.0.0.0/0,::/0"


@pytest.mark.parametrize(
    "text, host, port",
    [
        ("localhost:50051", "localhost", 50051),
        ("LocalHost.:1", "localhost", 1),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("[::1]:8000", "::1", 8000),
        ("[::ffff:127.0.0.1]:8000", "127.0.0.1", 8000),
        ("gpu-1.rack_2.example:8000", "gpu-1.rack_2.example", 8000),
        ("1gpu.example:8000", "1gpu.example", 8000),
    ],
)
def test_an_endpoint_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(host, port)
    assert parse_endpoint(str(parse_endpoint(text))) == Endpoint(host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "localhost",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:+80",
        "localhost:\u0668\u0660",
        "http://localhost:80",
        "user@localhost:80",
        "localhost/path:80",
        "::1:80",
        "[::1]80",
        "[fe80::1%eth0]:80",
        "[127.0.0.1]:80",
        "127.1:80",
        "2130706433:80",
        "0x7f000001:80",
        "0x7f.1:80",
        "0177.0.0.1:80",
        "127.0.0.01:80",
        "127.0.0.1.:80",
        "1.2.3.4.5:80",
        "a..b:80",
        "-a:80",
        "h\u00f6st:80",
        "local host:80",
        "localhost:80\r\nX: y",
        "localhost\x00:80",
        "a" * 64 + ":80",
        ".".join(["a" * 60] * 5) + ":80",
    ],
)
def test_what_is_not_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::ffff:0.0.0.0",
        "::ffff:224.0.0.1",
        "::169.254.169.254",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1",
    ],
)
def test_some_addresses_are_never_allowed(address: str) -> None:
    found = ip_address(address)
    assert forbidden_kind(found)
    assert refusal(Endpoint("listed", 80), [found], parse_allowance(f"{EVERYTHING},listed,{address}"))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.9", "::1", "10.0.0.1", "2001:db8::1", "8.8.8.8"])
def test_others_are_as_the_list_says(address: str) -> None:
    found = ip_address(address)
    assert forbidden_kind(found) is None
    assert refusal(Endpoint(address, 80), [found], parse_allowance(EVERYTHING)) is None
    assert refusal(Endpoint(address, 80), [found], parse_allowance("")) is not None
    by_default = refusal(Endpoint(address, 80), [found], parse_allowance(DEFAULT)) is None
    assert by_default is found.is_loopback


def test_a_name_is_allowed_by_name_or_by_all_its_addresses() -> None:
    inside, outside = ip_address("10.0.0.1"), ip_address("192.0.2.1")
    endpoint = parse_endpoint("gpu1:80")
    assert refusal(endpoint, [inside, outside], parse_allowance("gpu1")) is None
    assert refusal(endpoint, [inside], parse_allowance("10.0.0.0/8")) is None
    assert refusal(endpoint, [inside, outside], parse_allowance("10.0.0.0/8")) is not None
    assert refusal(endpoint, [inside], parse_allowance("gpu2")) is not None


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "a b", "http://x", "127.1"])
def test_a_list_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_allowance(text)


def test_ipv4_comes_first_and_each_once() -> None:
    found = preferred(map(ip_address, ("::1", "127.0.0.1", "::ffff:127.0.0.1")))
    assert list(map(str, found)) == ["127.0.0.1", "::1"]


@given(st.text(max_size=60))
def test_whatever_is_sent_is_an_endpoint_or_a_plain_refusal(text: str) -> None:
    with suppress(ValueError):
        found = parse_endpoint(text)
        assert parse_endpoint(str(found)) == found
