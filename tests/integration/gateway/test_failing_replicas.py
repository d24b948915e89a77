"""Replicas that fail, are full, or are slow; callers that go away."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from app.domain.routing import RegistrationFacts
from app.gateway.overdue import Limits, cut, try_again
from app.haproxy.runtime import Session
from tests.integration.gateway.doors import Answer, Door, open_door, replica
from tests.support.sayers import Sayer, wait_for

LARGE = "x" * 300_000
Open = Callable[..., Door]
Engines = Callable[..., list[Sayer]]


@pytest.fixture
def engines() -> Iterator[Engines]:
    found: list[Sayer] = []

    def start(count: int, **faults: Any) -> list[Sayer]:
        made = [Sayer(f"e{number}", **faults).start() for number in range(len(found), len(found) + count)]
        found.extend(made)
        return made

    yield start
    for one in found:
        if one.hold is not None:
            one.hold.set()
        one.stop()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    with ExitStack() as stack:

        def start(sayers: list[Sayer], *, max_concurrency: int = 0, **more: Any) -> Door:
            facts = [replica(one, "m", number, max_concurrency=max_concurrency) for number, one in enumerate(sayers, 1)]
            return stack.enter_context(open_door(tmp_path, facts, **more))

        yield start


def in_threads(count: int, act: Callable[[], Answer]) -> tuple[list[threading.Thread], list[Answer]]:
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(act())) for _ in range(count)]
    for one in threads:
        one.start()
    return threads, answers


def sent(door: Door, body: dict[str, Any], path: str = "/v1/chat/completions") -> socket.socket:
    """A connection on which a request was sent, and nothing read."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-API-Key: {door.keys['all']}\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", door.port), timeout=20)
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("fault", [{"drops": True}, {"status": 503}])
@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_another_replica_is_asked(engines: Engines, opened: Open, fault: dict[str, Any], pad: str) -> None:
    bad, *good = engines(1, **fault) + engines(2)
    # what it does wrong is not to take it out here: the retry is what is looked at
    door = opened([bad, *good], lanes={"error_limit": 1000})
    answers = [door.chat("m", pad=pad) for _ in range(30)]
    assert {answer.status for answer in answers} == {200}
    assert bad.asked


@pytest.mark.parametrize(
    "method,path,body",
    [
        ("POST", "/v1/audio/speech", {"model": "m"}),
        ("POST", "/v1/fine_tuning/jobs", {"model": "m", "pad": LARGE}),
        ("GET", "/v1/files", None),
        ("DELETE", "/v1/files/1", None),
        ("PUT", "/v1/files/1", {"model": "m"}),
        ("POST", "/v1/chat/completions/", {"model": "m"}),
    ],
)
def test_nothing_else_is_sent_twice(
    engines: Engines, opened: Open, method: str, path: str, body: dict[str, Any] | None
) -> None:
    bad = engines(2, drops=True)
    door = opened(bad)
    services = {} if body else {"X-Hostler-Replica": f"{1:012x}"}
    answer = door.ask(method, path, body, headers=services)
    assert (answer.status, answer.json["source"]) == (502, "gateway")
    assert sum(len(one.asked) for one in bad) == 1


def test_a_bad_prompt_is_not_tried_on_all(engines: Engines, opened: Open) -> None:
    both = engines(2, status=500)
    door = opened(both)
    for pad in ("", LARGE):
        answer = door.chat("m", pad=pad)
        assert (answer.status, answer.served_by in ("e0", "e1")) == (500, True)
    assert sum(len(one.asked) for one in both) == 2


def test_a_replica_that_is_not_there_is_passed_over(engines: Engines, opened: Open) -> None:
    gone, good = engines(2)
    door = opened([gone, good], lanes={"check_s": 30})
    gone.stop()
    for path in ("/v1/chat/completions", "/v1/audio/speech"):
        for pad in ("", LARGE):
            answers = [door.ask("POST", path, {"model": "m", "pad": pad}) for _ in range(4)]
            assert {(answer.status, answer.served_by) for answer in answers} == {(200, "e1")}
    gone.start(gone.port)


def test_killed_in_the_middle(engines: Engines, opened: Open) -> None:
    three = engines(3)
    door = opened(three)
    over = threading.Event()
    answers: list[Answer] = []

    def ask(pad: str) -> None:
        while not over.is_set():
            answers.append(door.chat("m", pad=pad))

    for one in three:
        one.delay_s = 0.02
    threads = [threading.Thread(target=ask, args=(pad,)) for pad in ["", "", "", LARGE, LARGE]]
    for one in threads:
        one.start()
    wait_for(lambda: len(answers) > 50)
    three[0].stop()
    seen = len(answers)
    wait_for(lambda: len(answers) > seen + 100)
    over.set()
    for one in threads:
        one.join()
    assert {answer.status for answer in answers} == {200}
    three[0].start(three[0].port)


def test_full_and_queued(engines: Engines, opened: Open) -> None:
    (one,) = engines(1, hold=threading.Event())
    door = opened([one], max_concurrency=1, lanes={"queue": 2, "queue_s": 4})
    first, served = in_threads(1, lambda: door.chat("m"))
    wait_for(lambda: one.active == 1)
    threads, answers = in_threads(2, lambda: door.chat("m"))
    wait_for(lambda: _queued(door) == 2)
    for pad in ("", LARGE):
        full = door.chat("m", pad=pad)
        assert (full.status, full.json["code"], full.json["source"]) == (429, "route_full", "gateway")
        assert int(full.headers["retry-after"]) >= 1
    wait_for(lambda: len(answers) == 2)
    assert {(answer.status, answer.json["code"]) for answer in answers} == {(503, "replicas_busy")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert one.hold is not None
    one.hold.set()
    for thread in first + threads:
        thread.join()
    assert [answer.status for answer in served] == [200]
    assert len(one.asked) == 1


def test_a_queue_without_a_place(engines: Engines, opened: Open) -> None:
    (one,) = engines(1, hold=threading.Event())
    door = opened([one], max_concurrency=1, lanes={"queue": 0})
    threads, served = in_threads(1, lambda: door.chat("m"))
    wait_for(lambda: one.active == 1)
    assert (door.chat("m").status, door.chat("m").json["code"]) == (429, "route_full")
    assert one.hold is not None
    one.hold.set()
    threads[0].join()
    assert [answer.status for answer in served] == [200]
    wait_for(lambda: one.active == 0)
    assert door.chat("m").status == 200


def test_a_queue_without_a_place_before_a_replica_without_a_bound(engines: Engines, opened: Open) -> None:
    (one,) = engines(1)
    door = opened([one], lanes={"queue": 0})
    assert {door.chat("m").status for _ in range(5)} == {200}


def _queued(door: Door) -> int:
    return sum(int(row["qcur"] or 0) for row in _stats(door) if row["svname"] == "BACKEND")


def _in_flight(door: Door) -> int:
    """At all servers, as HAProxy counts; a request counts until a moment after its caller has the answer."""
    return sum(int(row["scur"] or 0) for row in _stats(door) if row["svname"] not in ("BACKEND", "FRONTEND"))


def _stats(door: Door) -> list[dict[str, str]]:
    lines = door.command("show stat").splitlines()
    columns = lines[0].removeprefix("# ").split(",")
    rows = [dict(zip(columns, line.split(","), strict=False)) for line in lines[1:] if line]
    return [row for row in rows if row["pxname"] != "control"]


def test_the_least_loaded_is_asked(engines: Engines, opened: Open) -> None:
    busy, idle = engines(1, hold=threading.Event()) + engines(1)
    door = opened([busy, idle])
    threads: list[threading.Thread] = []
    # equals take turns: the second at the latest is kept. One after the other, so that no tie is left at the idle one
    while not busy.active:
        [thread], _ = in_threads(1, lambda: door.chat("m"))
        threads.append(thread)
        wait_for(lambda asked=thread: busy.active or not asked.is_alive())
    for _ in range(10):
        wait_for(lambda: _in_flight(door) == 1)
        assert door.chat("m").served_by == "e1"
    assert busy.hold is not None
    busy.hold.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_caller_that_goes_away_frees_its_place(engines: Engines, opened: Open, pad: str, stream: bool) -> None:
    (one,) = engines(1, pieces=100_000) if stream else engines(1, hold=threading.Event())
    door = opened([one], max_concurrency=1)
    first = sent(door, {"model": "m", "stream": stream, "pad": pad})
    wait_for(lambda: one.active == 1)
    waiting = sent(door, {"model": "m", "stream": stream, "pad": pad})
    wait_for(lambda: _queued(door) == 1)
    waiting.close()
    if not pad:
        wait_for(lambda: _queued(door) == 0, 2)
    # of one whose body does not fit its buffer HAProxy sees it when its turn has come, before the engine has it whole
    if stream:
        first.recv(1000)
    first.close()
    wait_for(lambda: one.active == 0, 2)
    wait_for(lambda: _queued(door) == 0, 2)
    assert one.gone == len(one.asked)
    assert one.gone == 1 or pad


def test_callers_never_count_against_a_replica(engines: Engines, opened: Open) -> None:
    (one,) = engines(1, status=422)
    door = opened([one], lanes={"error_limit": 2, "fall": 1, "check_s": 30})
    assert {door.chat("m").status for _ in range(20)} == {422}
    one.hold = threading.Event()
    for _ in range(6):
        connection = sent(door, {"model": "m"})
        wait_for(lambda: one.active == 1)
        connection.close()
        wait_for(lambda: one.active == 0)
    one.status, one.hold = 200, None
    assert door.chat("m").status == 200


def test_a_replica_that_fails_again_and_again_is_out_for_a_while(engines: Engines, opened: Open) -> None:
    bad, good = engines(1, status=500) + engines(1)
    # out for some checks' time, in which a slow machine can ask often enough to see it
    door = opened([bad, good], lanes={"error_limit": 5, "fall": 2, "check_s": 3})
    wait_for(lambda: door.chat("m").served_by == "e0")
    # while it answers its checks: ten errors in a row are two failed checks
    wait_for(lambda: _ask_until_out(door), 30)
    bad.status = 200
    wait_for(lambda: "e0" in {door.chat("m").served_by for _ in range(4)}, 30)


def _ask_until_out(door: Door) -> bool:
    return {door.chat("m").served_by for _ in range(20)} == {"e1"}


def test_checks_take_out_and_bring_back(engines: Engines, opened: Open) -> None:
    sick, well = engines(2)
    door = opened([sick, well], lanes={"check_s": 0.2})
    sick.healthy = False
    wait_for(lambda: {door.chat("m").served_by for _ in range(6)} == {"e1"})
    well.healthy = False
    wait_for(lambda: door.chat("m").status == 503)
    out = door.chat("m")
    assert (out.json["code"], out.json["source"]) == ("no_ready_replica", "gateway")
    assert int(out.headers["retry-after"]) >= 1
    with Session(door.layout.haproxy_socket) as session:
        assert try_again(session) == 2
    assert door.chat("m").status == 200
    sick.healthy = well.healthy = True
    wait_for(lambda: {door.chat("m").served_by for _ in range(6)} == {"e0", "e1"})
    with Session(door.layout.haproxy_socket) as session:
        assert try_again(session) == 0


def test_who_knows_no_check_is_there_all_the_same(engines: Engines, opened: Open) -> None:
    """A server of somebody's may take POSTs only, and then says 501 to a check; one without such a path says 404."""
    posts, other, sick = engines(3)
    door = opened([posts, other, sick], lanes={"check_s": 0.2})
    posts.sick_status, other.sick_status = 501, 404
    for one in (posts, other, sick):
        one.healthy = False
    # as many checks as take out the sick one have found the others there
    wait_for(lambda: {door.chat("m").served_by for _ in range(9)} == {"e0", "e1"})


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_first_byte_in_time(engines: Engines, opened: Open, pad: str) -> None:
    slow = engines(2, delay_s=3)
    door = opened(slow, lanes={"first_byte_s": 1})
    answer = door.chat("m", pad=pad)
    assert (answer.status, answer.json["code"], answer.json["source"]) == (504, "gateway_timeout", "gateway")
    # a slow answer is not asked for twice
    assert sum(len(one.asked) for one in slow) == 1


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_a_caller_may_wait_longer_than_it_may_be_silent_itself(engines: Engines, opened: Open, pad: str) -> None:
    (one,) = engines(1, pieces=3, gap_s=1.5, delay_s=1.5)
    door = opened([one], lanes={"first_byte_s": 10})
    answer = door.ask("POST", "/v1/chat/completions", {"model": "m", "stream": True, "pad": pad})
    assert (answer.status, answer.body.count(b"served_by")) == (200, 3)


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_silence_and_the_whole_time(engines: Engines, opened: Open, pad: str) -> None:
    (one,) = engines(1, pieces=2, gap_s=30)
    door = opened([one], lanes={"first_byte_s": 100})
    stalled = sent(door, {"model": "m", "stream": True, "pad": pad})
    wait_for(lambda: one.active == 1)
    assert b"served_by" in _some(stalled)
    silence = Limits(first_byte_s=100, idle_s=1, total_s=0, tries=False)
    with Session(door.layout.haproxy_socket) as session:
        wait_for(lambda: cut(session, silence) == 1)
        _ended(stalled)
        # before the first byte it is another limit that counts
        one.hold = threading.Event()
        waiting = sent(door, {"model": "m", "pad": pad})
        wait_for(lambda: len(one.asked) == 2)
        for _ in range(3):
            time.sleep(1)
            assert cut(session, silence) == 0
        total = Limits(first_byte_s=100, idle_s=0, total_s=2, tries=False)
        # HAProxy takes a cut for a replica that went away and may try another; the whole time goes on meanwhile
        wait_for(lambda: cut(session, total) >= 0 and select.select([waiting], [], [], 0.1)[0])
        # nothing had come yet, so there is still room for an answer
        assert waiting.recv(65536).startswith(b"HTTP/1.1 502 ")
    stalled.close()
    waiting.close()


def _some(connection: socket.socket) -> bytes:
    found = b""
    while b"served_by" not in found:
        piece = connection.recv(65536)
        assert piece, found
        found += piece
    return found


def _ended(connection: socket.socket) -> None:
    connection.settimeout(5)
    found = b""
    while piece := connection.recv(65536):
        found += piece
    assert not found.endswith(b"0\r\n\r\n"), "a cut stream must not look whole"


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_a_stream_whose_replica_dies_is_seen_to_be_cut(engines: Engines, opened: Open, pad: str) -> None:
    one, other = engines(2, pieces=100_000)
    door = opened([one, other])
    connection = sent(door, {"model": "m", "stream": True, "pad": pad})
    _some(connection)
    died = one if one.active else other
    died.stop()
    _ended(connection)
    connection.close()
    # begun is begun: nobody else was asked
    assert len(one.asked) + len(other.asked) == 1
    died.start(died.port)


def test_a_registered_server_never_sees_our_keys(engines: Engines, opened: Open) -> None:
    foreign, ours = engines(2)
    registration = RegistrationFacts("somebody's server", 3, "127.0.0.1", foreign.port, True, "m")
    door = opened([ours], registrations=[registration], lanes={"check_s": 0.2})
    answers: list[Answer] = []
    while not (foreign.asked and ours.asked):
        answers.append(door.chat("m"))
        answers.append(door.chat("m", pad=LARGE))
        assert len(answers) < 100
    assert {answer.status for answer in answers} == {200}
    wait_for(lambda: any(seen.path == "/health" for seen in foreign.seen))
    for seen in foreign.seen:
        assert "authorization" not in seen.headers
        assert not [name for name in seen.headers if name.startswith("x-hostler")]
        assert "x-api-key" not in seen.headers
    names = {answer.headers["x-hostler-replica"] for answer in answers}
    assert f"{1:012x}" in names
    assert any(name.startswith("reg-") for name in names)
    # and it is out when it is gone
    foreign.stop()
    wait_for(lambda: {door.chat("m").served_by for _ in range(6)} == {"e1"})
    foreign.start(foreign.port)


@pytest.mark.parametrize("fault", [{"drops": True}, {"status": 503}])
@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_another_registered_server_is_asked(engines: Engines, opened: Open, fault: dict[str, Any], pad: str) -> None:
    """The relay that stands before them hides nothing of how a request ended."""
    bad, good = engines(1, **fault) + engines(1)
    facts = [RegistrationFacts(one.name, 1, "127.0.0.1", one.port, True, "m") for one in (bad, good)]
    door = opened([], registrations=facts, lanes={"error_limit": 1000})
    answers = [door.chat("m", pad=pad) for _ in range(20)]
    assert {answer.status for answer in answers} == {200}
    assert bad.asked
    # and nothing that may not be asked twice is
    good.drops, good.status = bad.drops, bad.status
    before = len(bad.asked) + len(good.asked)
    once = door.ask("POST", "/v1/audio/speech", {"model": "m", "pad": pad})
    assert once.status == fault.get("status", 502)
    assert len(bad.asked) + len(good.asked) == before + 1


@pytest.mark.parametrize("pad", ["", LARGE], ids=["fast", "slow"])
def test_a_registered_server_that_is_not_there_is_passed_over(engines: Engines, opened: Open, pad: str) -> None:
    gone, here = engines(2)
    facts = [RegistrationFacts(one.name, 1, "127.0.0.1", one.port, True, "m") for one in (gone, here)]
    # before any check has seen it
    door = opened([], registrations=facts, lanes={"error_limit": 1000, "check_s": 60})
    gone.stop()
    try:
        answers = [door.chat("m", pad=pad) for _ in range(20)]
    finally:
        gone.start(gone.port)
    assert {(answer.status, answer.served_by) for answer in answers} == {(200, here.name)}


def test_a_registered_server_that_just_went_is_passed_over_by_many(engines: Engines, opened: Open) -> None:
    """It fails at once, so that it is always the least loaded, until the checks have seen it."""
    three = engines(3)
    facts = [RegistrationFacts(one.name, 1, "127.0.0.1", one.port, True, "m") for one in three]
    door = opened([], registrations=facts, lanes={"check_s": 1})
    for one in three:
        one.delay_s = 0.05
    answers: list[Answer] = []
    with ThreadPoolExecutor(9) as many:
        for number, asked in enumerate([many.submit(door.chat, "m", pad=LARGE) for _ in range(300)]):
            if number == 30:
                three[0].stop()
            answers.append(asked.result())
    three[0].start(three[0].port)
    assert {answer.status for answer in answers} == {200}


def test_one_replica_by_its_address(engines: Engines, opened: Open) -> None:
    first, second = engines(2)
    door = opened([first, second])
    for number, one in ((1, first), (2, second)):
        base = f"/api/v1/replicas/{number:012x}/proxy"
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = door.ask(method, f"{base}/a/b%20c;d?x=1&y=%2F", {"a": 1} if method[0] == "P" else None)
            assert (answer.status, answer.served_by) == (200, one.name)
            assert answer.headers["x-hostler-replica"] == f"{number:012x}"
            seen = one.asked[-1]
            assert (seen.method, seen.path) == (method, "/a/b%20c;d?x=1&y=%2F")
        assert door.ask("GET", base).json["path"] == "/"
        assert door.ask("GET", f"{base}/").json["path"] == "/"
        assert door.ask("GET", "/v1/whatever", headers={"X-Hostler-Replica": f"{number:012x}"}).served_by == one.name
    first.stop()
    gone = door.ask("GET", f"/api/v1/replicas/{1:012x}/proxy/x")
    assert (gone.status, gone.json["source"]) == (503, "gateway")
    first.start(first.port)


def test_a_web_socket_to_one_replica(engines: Engines, opened: Open) -> None:
    (one,) = engines(1)
    door = opened([one])
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as connection:
        connection.sendall(
            f"GET /api/v1/replicas/{1:012x}/proxy/socket?a=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, X-API-Key\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"X-API-Key: {door.keys['all']}\r\n\r\n".encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
        connection.sendall(b"hello\n")
        assert connection.recv(100) == b"e0:hello\n"
    assert one.asked[-1].path == "/socket?a=1"
    # not on the other routes
    answer = door.raw(
        f"GET /v1/socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"X-Hostler-Replica: {1:012x}\r\nX-API-Key: {door.keys['all']}\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_engine_cannot_pass_for_another_or_for_the_gateway(engines: Engines, opened: Open) -> None:
    # it says X-Hostler-Replica: forged and X-Hostler-Failed: 1 with every answer
    (one,) = engines(1, status=502)
    door = opened([one])
    for pad in ("", LARGE):
        answer = door.chat("m", pad=pad)
        assert (answer.status, answer.headers["x-hostler-replica"]) == (502, f"{1:012x}")
        assert "x-hostler-failed" not in answer.headers
    assert len(one.asked) == 2
