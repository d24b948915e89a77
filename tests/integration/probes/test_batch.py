"""Many probes at once: right answers to the right targets, kept connections, hard bounds."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.integration.probes.conftest import OK, Serve, answering, silent, trickling
from tests.support.engines import HOST
from tests.support.ports import free_port
from workers.probes.batch import Prober
from workers.probes.wire import ProbeTarget

BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def prober() -> Iterator[Prober]:
    with Prober() as prober:
        yield prober


def test_nothing_to_ask(prober: Prober) -> None:
    assert prober.probe([]) == []


def test_each_result_belongs_to_its_target(prober: Prober, serve: Serve) -> None:
    good, busy = serve(answering(OK)).port, serve(answering(BUSY)).port
    foreign, mute, nobody = serve(answering(b"SSH-2.0\r\n")).port, serve(silent).port, free_port()
    ports = [good, mute, busy, nobody, foreign, good]
    for _ in range(3):
        results = prober.probe([ProbeTarget(HOST, port, timeout_s=0.3) for port in ports])
        assert [result.detail for result in results] == [
            "HTTP 200",
            "no answer within 0.3 s",
            "HTTP 503",
            "connection refused",
            "what listens there does not speak HTTP",
            "HTTP 200",
        ]
        assert [result.ok for result in results] == [True, False, False, False, False, True]


def test_connections_are_kept_between_rounds(prober: Prober, serve: Serve) -> None:
    server = serve(answering(OK))
    for _ in range(5):
        assert [result.ok for result in prober.probe([ProbeTarget(HOST, server.port)] * 3)] == [True] * 3
    assert len(server.accepted) == 3


def test_a_kept_connection_that_the_engine_closed_is_no_verdict(prober: Prober, serve: Serve) -> None:
    # llama.cpp closes after five idle seconds and after a hundred requests
    server = serve(answering(OK, OK, b""))
    for _ in range(7):
        assert prober.probe([ProbeTarget(HOST, server.port)])[0].ok
    assert len(server.accepted) >= 3


def test_an_engine_that_died_between_rounds_is_seen(prober: Prober) -> None:
    code = (
        "import socket\nlistener = socket.create_server(('127.0.0.1', 0))\n"
        "print(listener.getsockname()[1], flush=True)\n"
        "while True:\n connection, _ = listener.accept()\n connection.recv(999)\n"
        " connection.send(b'HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')\n"
    )
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        target = ProbeTarget(HOST, int(child.stdout.readline()))
        assert prober.probe([target])[0].ok
        child.kill()
    assert prober.probe([target])[0].detail == "connection refused"


@pytest.mark.parametrize("handler", [silent, trickling])
def test_the_timeout_is_hard_also_on_a_kept_connection(prober: Prober, serve: Serve, handler: object) -> None:
    def once_then_bad(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OK)
        connection.recv(4096)
        handler(connection)  # type: ignore[operator]

    target = ProbeTarget(HOST, serve(once_then_bad).port, timeout_s=0.3)
    assert prober.probe([target])[0].ok
    begun = time.monotonic()
    assert prober.probe([target])[0].detail == "no answer within 0.3 s"
    assert time.monotonic() - begun < 1


def test_hung_engines_do_not_hold_up_the_others(serve: Serve) -> None:
    good, mute = serve(answering(OK)).port, serve(silent).port
    with Prober(at_once=50) as prober:
        ports = [mute] * 40 + [good] * 400
        begun = time.monotonic()
        results = prober.probe([ProbeTarget(HOST, port, timeout_s=0.5) for port in ports])
        assert time.monotonic() - begun < 2
    assert [result.ok for result in results] == [False] * 40 + [True] * 400
    assert max(result.latency_ms for result in results[40:]) < 500


def test_no_more_connections_than_allowed_are_kept(serve: Serve) -> None:
    servers = [serve(answering(OK)) for _ in range(4)]
    with Prober(kept=2) as prober:
        for _ in range(3):
            assert all(result.ok for result in prober.probe([ProbeTarget(HOST, server.port) for server in servers]))
        assert len(_open_sockets_to({server.port for server in servers})) == 2


def test_a_forgotten_endpoint_is_let_go(prober: Prober, serve: Serve) -> None:
    server = serve(answering(OK))
    prober.probe([ProbeTarget(HOST, server.port)])
    prober.forget(HOST, server.port)
    prober.forget(HOST, server.port)
    assert _open_sockets_to({server.port}) == []


def test_too_few_files_are_no_verdict_on_the_engines(serve: Serve) -> None:
    server = serve(answering(OK))
    with Prober(at_once=40) as prober:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, hard))
        try:
            results = prober.probe([ProbeTarget(HOST, server.port, timeout_s=3)] * 60)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # the server in this process runs out of files too, so some may come late; none is blamed for our limit
    assert not [result for result in results if "files" in result.detail]


def test_no_files_at_all_is_an_error_of_ours(serve: Serve) -> None:
    target = ProbeTarget(HOST, serve(answering(OK)).port)
    with Prober() as prober:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                prober.probe([target])
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert prober.probe([target])[0].ok, "the next round starts clean"


def test_two_thousand_probes_cost_a_fraction_of_a_second(prober: Prober) -> None:
    code = "from benchmarks.responder import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_root()
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        targets = [ProbeTarget(HOST, int(child.stdout.readline()))] * 2000
        prober.probe(targets)
        begun = time.process_time()
        assert all(result.ok for result in prober.probe(targets))
        assert time.process_time() - begun < 0.5
        child.stdin.close()


def _open_sockets_to(ports: set[int]) -> list[str]:
    """Client sockets of this process: established, to one of ``ports``."""
    own = {os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd") if _is_there(number)}
    found = []
    with open("/proc/self/net/tcp") as table:
        for line in table.readlines()[1:]:
            words = line.split()
            if int(words[2].split(":")[1], 16) in ports and words[3] == "01" and f"socket:[{words[9]}]" in own:
                found.append(line)
    return found


def _is_there(number: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{number}")


def _root() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
