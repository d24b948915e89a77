"""Which pages a browser lets call the model API, as the door tells it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.public_door import OK, Answer, Door, public_door

PAGE = "https://app.example"
OTHER = "http://127.0.0.1:3000"
SHARED = ("/", "/health", "/chat", "/models", "/tokenize", "/generate", "/stream/generate", "/batch/generate")
#: As an engine says it to everybody.
LOOSE = OK.replace(
    b"Server:",
    b"Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
    b"access-control-allow-headers: *\r\nServer:",
)


@pytest.fixture(scope="module")
def listing() -> Iterator[Door]:
    with public_door({"HOSTLER_CORS_ORIGINS": f"{PAGE},{OTHER}"}) as door:
        yield door


@pytest.fixture
def door(listing: Door) -> Door:
    listing.behind.clear()
    return listing


def cors(answer: Answer) -> dict[str, str]:
    return {name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("access-control")}


def preflight(door: Door, path: str, origin: str, *more: str, method: str = "POST") -> Answer:
    lines = [
        f"OPTIONS {path} HTTP/1.1",
        "Host: door",
        f"Origin: {origin}",
        f"Access-Control-Request-Method: {method}",
        *more,
    ]
    return door.send("\r\n".join([*lines, "", ""]).encode(), wait_closed_s=0.01)


@pytest.mark.parametrize("path", [*SHARED, "/v1/chat/completions", "/v1/models"])
def test_a_page_of_a_listed_origin_may_ask_without_a_key(door: Door, path: str) -> None:
    answer = preflight(door, path, PAGE, "Access-Control-Request-Headers: content-type,x-api-key")
    assert (answer.status, answer.body) == (204, b"")
    assert cors(answer) == {
        "access-control-allow-origin": PAGE,
        "access-control-allow-methods": "GET, POST, DELETE",
        "access-control-allow-headers": "content-type,x-api-key",
        "access-control-max-age": "600",
    }
    assert "Origin" in ", ".join(answer.headers.get_all("Vary"))
    assert door.behind.seen == [], "it is answered at the door"


def test_its_requests_are_answered_with_its_origin(door: Door) -> None:
    for origin in (PAGE, OTHER):
        answer = door.get("/chat", Origin=origin)
        assert (answer.status, answer.headers["Vary"]) == (200, "Origin")
        assert cors(answer)["access-control-allow-origin"] == origin
        assert "x-request-id" in cors(answer)["access-control-expose-headers"].lower()


def test_it_can_read_why_it_was_refused(door: Door) -> None:
    answer = door.send(
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    assert answer.problem["code"] == "unauthenticated"
    assert cors(answer)["access-control-allow-origin"] == PAGE
    door.behind.answer = b""
    gone = door.get("/chat", Origin=PAGE)
    assert gone.status >= 500
    assert cors(gone)["access-control-allow-origin"] == PAGE


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "*",
        "https://app.example.evil",
        "https://evil/https://app.example",
        "https://APP.example",
        "http://app.example",
        "https://app.example:8443",
        "https://app.example/",
        "https://app.example, https://evil",
        "https://app.example\thttps://evil",
        "https://app.example\\nhttps://evil",
        "https://app.example%0d%0aX-Evil:1",
        "' or 1",
    ],
)
def test_another_origin_is_told_nothing(door: Door, origin: str) -> None:
    answer = preflight(door, "/chat", origin)
    assert (answer.status, answer.problem["code"], cors(answer)) == (403, "forbidden", {})
    assert answer.headers["Vary"] == "Origin"
    answer = door.get("/chat", Origin=origin)
    assert (answer.status, cors(answer), answer.headers["Vary"]) == (200, {}, "Origin")


def test_two_origins_are_none(door: Door) -> None:
    lines = f"GET /chat HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nOrigin: https://evil\r\n\r\n"
    assert cors(door.send(lines.encode())) == {}
    lines = f"GET /chat HTTP/1.1\r\nHost: x\r\nOrigin: {PAGE}\r\nOrigin: {PAGE}\r\n\r\n"
    assert cors(door.send(lines.encode())) == {}


@pytest.mark.parametrize("line", ["Origin: https://app.example\r X: y", "Origin: https://app.example\0"])
def test_a_header_that_breaks_its_line_is_no_request(door: Door, line: str) -> None:
    answer = door.send(f"GET /chat HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode())
    assert (answer.status, cors(answer)) == (400, {})


@pytest.mark.parametrize("path", ["/api/v1/keys", "/api/v1/replicas", "/metrics", "/flower/", "/docs", "/chatter"])
def test_the_rest_is_no_pages_to_call(door: Door, path: str) -> None:
    assert cors(preflight(door, path, PAGE)) == {}
    answer = door.get(path, Origin=PAGE)
    assert cors(answer) == {}
    assert answer.headers["Vary"] is None


def test_what_an_engine_tells_everybody_ends_at_the_door(door: Door) -> None:
    door.behind.answer = LOOSE
    assert cors(door.get("/chat", Origin="https://evil")) == {}
    assert cors(door.get("/metrics", Origin="https://evil")) == {}
    assert cors(door.get("/chat", Origin=PAGE))["access-control-allow-origin"] == PAGE
    assert "access-control-allow-credentials" not in cors(door.get("/chat", Origin=PAGE))


@pytest.mark.parametrize("headers", ["x-a\x80", "x-a;evil", "x" * 1001, ""])
def test_headers_that_are_no_names_are_not_repeated(door: Door, headers: str) -> None:
    answer = preflight(door, "/chat", PAGE, f"Access-Control-Request-Headers: {headers}")
    assert "access-control-allow-headers" not in cors(answer)


def test_a_page_of_a_public_network_may_come_in_where_its_origin_may(door: Door) -> None:
    private = "Access-Control-Request-Private-Network: true"
    assert cors(preflight(door, "/chat", PAGE, private))["access-control-allow-private-network"] == "true"
    assert cors(preflight(door, "/chat", "https://evil", private)) == {}


def test_options_without_an_origin_are_the_apis(door: Door) -> None:
    assert door.send(b"OPTIONS /chat HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    assert len(door.behind.seen) == 1


def test_without_the_setting_nobody_is_let_in() -> None:
    with public_door() as door:
        door.behind.answer = LOOSE
        answer = door.get("/chat", Origin=PAGE)
        assert (cors(answer), answer.headers["Vary"]) == ({}, None)
        assert cors(preflight(door, "/chat", PAGE)) == {}


def test_any_origin_may_never_with_credentials() -> None:
    with public_door({"HOSTLER_CORS_ORIGINS": "*"}) as door:
        answer = door.get("/chat", Origin="https://whoever.example")
        assert cors(answer)["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in cors(answer)
        assert preflight(door, "/v1/models", "null").status == 204
