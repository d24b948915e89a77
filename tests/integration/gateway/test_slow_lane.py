"""What the slow lane lets in, what it refuses, and what it hands on untouched."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.routing import ModelFacts
from tests.integration.gateway.doors import Door, open_door, replica
from tests.support.certificates import write_certificate
from tests.support.sayers import Sayer, wait_for

PATH = "/v1/chat/completions"
MOST = 4 * 1024 * 1024
LARGE = "x" * 300_000


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Sayer]]:
    found = {name: Sayer(name).start() for name in ("a", "b")}
    yield found
    for one in found.values():
        one.stop()


@pytest.fixture(scope="module")
def door(engines: dict[str, Sayer], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(
        tmp_path_factory.mktemp("door"),
        [replica(one, name, number) for number, (name, one) in enumerate(engines.items(), 1)],
        models=[ModelFacts("a"), ModelFacts("b")],
        keys={"limited": {"role": "infer", "models": ["a"]}},
        max_body=MOST,
        environ={"HOSTLER_SLOW_LANE_BYTES": str(MOST), "HOSTLER_SLOW_LANE_QUEUE": "1"},
    ) as found:
        yield found


def head(door: Door, path: str, *more: str, key: str = "all") -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Connection: close", f"X-API-Key: {door.keys[key]}", *more)
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def form(boundary: str, *parts: tuple[str, str]) -> bytes:
    """Each part is (what stands behind ``form-data;``, value)."""
    lead = f"--{boundary}\r\nContent-Disposition: form-data; "
    text = "".join(f"{lead}{what}\r\n\r\n{value}\r\n" for what, value in parts)
    return f"{text}--{boundary}--\r\n".encode()


def test_as_large_as_may_be_and_no_larger(door: Door) -> None:
    frame = len(json.dumps({"model": "a", "pad": ""}))
    exact = door.ask("POST", PATH, {"model": "a", "pad": "x" * (MOST - frame)})
    assert (exact.status, exact.json["size"]) == (200, MOST)
    over = door.raw(head(door, PATH, "Content-Type: application/json", f"Content-Length: {MOST + 1}"))
    assert status(over) == 413
    assert b'"code": "body_too_large"' in over
    piece = b"40000\r\n" + b"x" * 0x40000 + b"\r\n"
    with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
        connection.sendall(head(door, PATH, "Content-Type: application/json", "Transfer-Encoding: chunked"))
        sent = 0
        # without end, until it is told so
        while sent < 4 * MOST:
            try:
                connection.sendall(piece)
            except OSError:
                break
            sent += 0x40000
        connection.settimeout(10)
        assert status(connection.recv(65536)) == 413
    assert door.chat("a", pad=LARGE).status == 200


@pytest.mark.parametrize("key", ["all", "limited"])
@pytest.mark.parametrize("coding", ["gzip", "identity", "br, gzip", "x-nonsense"])
def test_compressed_bodies_are_refused(door: Door, coding: str, key: str) -> None:
    body = gzip.compress(json.dumps({"model": "b"}).encode())
    answer = door.ask("POST", PATH, body, key=key, headers={"Content-Encoding": coding})
    assert (answer.status, answer.json["code"]) == (415, "unsupported_encoding")
    if key == "limited":
        base = f"/api/v1/replicas/{1:012x}/proxy"
        for path, more in ((PATH, {"X-Hostler-Replica": f"{1:012x}"}), (f"{base}{PATH}", {})):
            answer = door.ask("POST", path, body, key=key, headers={"Content-Encoding": coding, **more})
            assert answer.status == 415


@pytest.mark.parametrize(
    "content_type,status",
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("text/plain", 200),
        ("application/vnd.odd+json", 200),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=x", 400),
        ("", 200),
    ],
)
def test_an_odd_content_type(door: Door, engines: dict[str, Sayer], content_type: str, status: int) -> None:
    answer = door.ask("POST", PATH, b'{"model": "b"}', headers={"Content-Type": content_type})
    assert answer.status == status, answer.body
    limited = door.ask("POST", PATH, b'{"model": "b"}', key="limited", headers={"Content-Type": content_type})
    assert limited.status == (403 if status == 200 else status)


@pytest.mark.parametrize(
    "parts,every,limited",
    [
        ([('name="model"', "a"), ('name="file"; filename="f"', "bytes")], "a", "a"),
        ([('name="file"; filename="f"', LARGE), ('name="model"', "b")], "b", 403),
        ([('name="model"', "a"), ('name="model"', "b")], 400, 400),
        ([('name="model"', "a"), ('name="Model"', "b")], 400, 400),
        ([('name="Model"', "b")], 400, 400),
        ([('name="model"; filename="f"', "a")], 400, 400),
        ([('name="file"; filename="model"', "b"), ('name="model"', "a")], "a", "a"),
        ([('name="prompt"', '{"model": "b"}'), ('name="model"', "a")], "a", "a"),
        ([('name="prompt"', "x")], 400, 400),
        ([('name="model"', "nobody")], 404, 403),
    ],
)
def test_forms(
    door: Door, engines: dict[str, Sayer], parts: list[tuple[str, str]], every: str | int, limited: str | int
) -> None:
    body = form("frontier", *parts)
    for key, wanted in (("all", every), ("limited", limited)):
        headers = {"Content-Type": "multipart/form-data; boundary=frontier"}
        answer = door.ask("POST", "/v1/audio/transcriptions", body, key=key, headers=headers)
        assert answer.status == (200 if isinstance(wanted, str) else wanted), answer.body
        if isinstance(wanted, str):
            assert answer.served_by == wanted
            assert engines[wanted].asked[-1].body == body
            assert engines[wanted].asked[-1].headers["content-type"] == headers["Content-Type"]


def test_a_form_without_an_end(door: Door) -> None:
    body = form("frontier", ('name="model"', "a"))[:-6]
    answer = door.ask("POST", PATH, body, headers={"Content-Type": "multipart/form-data; boundary=frontier"})
    assert answer.status == 400


def test_it_hands_on_all_but_what_is_ours(door: Door, engines: dict[str, Sayer]) -> None:
    headers = {"X-Custom": "kept", "User-Agent": "me", "X-Request-Id": "mine-1", "X-Hostler-Else": "no"}
    answer = door.ask("POST", f"{PATH}?a=%2F&b=1", {"model": "a", "pad": LARGE}, headers=headers)
    assert (answer.headers["x-request-id"], answer.headers["x-hostler-replica"]) == ("mine-1", f"{1:012x}")
    seen = engines["a"].asked[-1]
    assert seen.path == f"{PATH}?a=%2F&b=1"
    assert (seen.headers["x-custom"], seen.headers["user-agent"], seen.headers["x-request-id"]) == (
        "kept",
        "me",
        "mine-1",
    )
    assert {name for name in seen.headers if name.startswith("x-hostler")} == {"x-hostler-server"}


def test_a_stream_comes_as_it_is_made(door: Door, engines: dict[str, Sayer]) -> None:
    one = engines["a"]
    one.pieces, one.gap_s = 3, 0.7
    body = json.dumps({"model": "a", "stream": True, "pad": LARGE}).encode()
    lines = head(door, PATH, "Content-Type: application/json", f"Content-Length: {len(body)}")
    try:
        with socket.create_connection(("127.0.0.1", door.port), timeout=20) as connection:
            connection.sendall(lines + body)
            came: list[float] = []
            found = b""
            while piece := connection.recv(65536):
                found += piece
                came += [time.monotonic()] * piece.count(b"served_by")
    finally:
        one.pieces, one.gap_s = 5, 0.01
    assert status(found) == 200
    # one after the other, not all at the end
    assert len(came) == 3
    assert came[0] < came[1] < came[2]


def test_head_has_no_body(door: Door) -> None:
    for path, wanted in (("/v1/models", 200), ("/v1/models/nobody", 404), ("/v1/else", 404)):
        lines = head(door, path).replace(b"POST", b"HEAD").replace(b"Connection: close\r\n", b"")
        last = head(door, "/v1/models").replace(b"POST", b"GET")
        # a body would be taken for the answer to the second
        first, _, second = door.raw(lines + last).partition(b"\r\n\r\n")
        assert (status(first), status(second)) == (wanted, 200)
    refused = door.ask("POST", "/v1/models", {})
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("method", ["post", "P", "A" * 30, "P_ST", "PROPFIND"])
def test_the_engine_judges_the_method(door: Door, method: str) -> None:
    body = json.dumps({"pad": LARGE, "model": "a"}).encode()
    lines = head(door, PATH, f"Content-Length: {len(body)}", "Content-Type: application/json")
    straight, read = (
        door.raw(lines.replace(b"POST", method.encode()).replace(b"%d" % len(body), b"%d" % len(sent)) + sent)
        for sent in (b'{"model": "a"}', body)
    )
    assert status(read) == status(straight) == 501
    assert b"x-hostler-replica: " in read.lower()


def test_few_at_a_time(door: Door, engines: dict[str, Sayer]) -> None:
    """Room for one of the largest in each of two processes, and one that waits: of many some are told to come again."""
    body = json.dumps({"model": "a", "pad": "x" * (3 * 1024 * 1024)}).encode()
    one = engines["a"]
    one.hold = threading.Event()
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(door.ask("POST", PATH, body))) for _ in range(12)]
    try:
        for thread in threads:
            thread.start()
        wait_for(lambda: any(answer.status == 429 for answer in answers))
    finally:
        one.hold.set()
        one.hold = None
    for thread in threads:
        thread.join()
    refused = next(answer for answer in answers if answer.status == 429)
    assert {answer.status for answer in answers} == {200, 429}
    assert (refused.json["code"], int(refused.headers["retry-after"]) >= 1) == ("route_full", True)
    assert door.ask("POST", PATH, body).status == 200


def test_a_caller_that_leaves_in_the_middle_of_its_body(door: Door, engines: dict[str, Sayer]) -> None:
    before = len(engines["a"].asked)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
            connection.sendall(head(door, PATH, "Content-Type: application/json", "Content-Length: 1000000"))
            connection.sendall(b'{"model": "a", "pad": "' + b"x" * 200_000)
    assert door.chat("a", pad=LARGE).status == 200
    assert len(engines["a"].asked) == before + 1


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_both_versions_of_http_1(door: Door, version: str) -> None:
    for model, key, wanted in (("a", "all", 200), ("b", "all", 200), ("b", "limited", 403)):
        for body in (json.dumps({"model": model}), json.dumps({"pad": LARGE, "model": model})):
            lines = head(door, PATH, "Content-Type: application/json", f"Content-Length: {len(body)}", key=key)
            answer = door.raw(lines.replace(b"HTTP/1.1", version.encode()) + body.encode())
            assert status(answer) == wanted
            assert wanted != 200 or f'"served_by": "{model}"'.encode() in answer


def test_http_2(engines: dict[str, Sayer], tmp_path: Path) -> None:
    if not shutil.which("curl") or "HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout:
        pytest.skip("no curl with HTTP/2")
    certificate, key = write_certificate(tmp_path)
    folder = tmp_path / "s" / "gateway"
    folder.mkdir(parents=True)
    (folder / "tls.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    facts = [replica(one, name, number) for number, (name, one) in enumerate(engines.items(), 1)]
    keys = {"limited": {"role": "infer", "models": ["a"]}}
    with open_door(tmp_path, facts, keys=keys, certificate="tls.pem") as door:
        for body, wanted in (
            (b'{"model": "a"}', 200),
            (b'{"model": "b"}', 403),
            (b'{"model": "a", "\\u006dodel": "b"}', 400),
            (json.dumps({"pad": LARGE, "model": "a"}).encode(), 200),
            (json.dumps({"pad": LARGE, "model": "b"}).encode(), 403),
        ):
            for more in ([], ["-H", "Transfer-Encoding: chunked"]):
                told = _curl(door, body, more)
                assert told == f"{wanted} 2", (body[:50], more, told)


def _curl(door: Door, body: bytes, more: list[str]) -> str:
    """``status version``"""
    argv = ["curl", "-sk", "--http2", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--max-time", "20"]
    headers = ["-H", f"X-API-Key: {door.keys['limited']}", "-H", "Content-Type: application/json"]
    url = f"https://127.0.0.1:{door.port}{PATH}"
    done = subprocess.run([*argv, *headers, *more, "--data-binary", "@-", url], input=body, capture_output=True)
    return done.stdout.decode()


def test_the_fast_lane_needs_no_slow_one(engines: dict[str, Sayer], tmp_path: Path) -> None:
    facts = [replica(one, name, number) for number, (name, one) in enumerate(engines.items(), 1)]
    with open_door(tmp_path, facts, slow_lane=False) as door:
        assert door.chat("a").served_by == "a"
        away = door.chat("a", pad=LARGE)
        assert (away.status, away.json["source"], "retry-after" in away.headers) == (503, "gateway", True)
        assert os.path.exists(door.layout.inside_socket)
