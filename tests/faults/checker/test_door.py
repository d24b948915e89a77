"""What the checker must find in what was asked through the door, and in what HAProxy holds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.settings import Settings
from app.stack.haproxy import haproxy_program
from tests.faults.checker.story import B, C, Story, free_port, name_of
from tests.faults.harness import world
from tests.faults.harness.recorders import routes
from tests.faults.harness.recorders.routes import Routes
from tests.support.embedded import wait_until

_CONFIG = """
global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  timeout connect 1s
  timeout client 1s
  timeout server 1s
frontend f
  bind 127.0.0.1:{port}
  default_backend one
backend one
  server web 127.0.0.1:1
{servers}
"""


def _asked(story: Story, **changes: Any) -> None:
    """An answer as it should be, but for what is changed."""
    line: dict[str, Any] = {
        "by": "model",
        "model": "m0",
        "spelled": "plain",
        "key": "admin",
        "stream": False,
        "replica": None,
        "status": 200,
        "models": ["m0"],
        "engines": [name_of(C)],
        "headers": {"X-Hostler-Replica": C, "content-type": "application/json"},
    }
    story.journal("door", **line | changes)


def _refused(story: Story, status: int, kind: str = "application/problem+json", **headers: str) -> None:
    _asked(story, status=status, models=[], engines=[], headers={"content-type": kind, **headers})


SPOILS: dict[str, tuple[Callable[[Story], None], str]] = {
    "another model": (
        lambda s: _asked(s, models=["m1"]),
        "door: a request was answered by another model's replica",
    ),
    "another model in mid-stream": (
        lambda s: _asked(s, stream=True, models=["m0", "m1"]),
        "door: a request was answered by another model's replica",
    ),
    "two engines": (lambda s: _asked(s, engines=[name_of(B), name_of(C)]), "door: one answer is of two engines"),
    "another replica": (
        lambda s: _asked(s, by="replica", replica=B),
        "door: a request for one replica was answered by another",
    ),
    "the name of another": (
        lambda s: _asked(s, headers={"X-Hostler-Replica": B}),
        "door: an answer names another replica than the one who made it",
    ),
    "a model that the key may not ask": (
        lambda s: _asked(s, key="limited", model="m1", models=["m1"]),
        "door: a key was answered by a model that it may not ask",
    ),
    "a 500": (lambda s: _refused(s, 500), "door: the door answered 500"),
    "a 503 without a time": (lambda s: _refused(s, 503), "door: a 503 does not say when to try again"),
    "HAProxy's own words": (lambda s: _refused(s, 502, "text/html"), "door: a refusal is no problem of ours"),
    "a ready replica that nobody reaches": (
        lambda s: _asked(s, status=404, about=C, last=True, models=[], engines=[]),
        "door: a ready replica is not reached when all is at rest",
    ),
    "somebody else's server told a key": (
        lambda s: s.journal("told", path="/v1/chat/completions", headers=["authorization"]),
        "door: a server that is not ours was told a key",
    ),
    "a registration for ever": (
        lambda s: s.journal("left", found=200, asked=404),
        "door: a registration did not end with its connection",
    ),
    "a registered server that is asked for ever": (
        lambda s: s.journal("left", found=404, asked=200),
        "door: a registration did not end with its connection",
    ),
    "a registered server's words from another": (
        lambda s: _asked(s, by="registered"),
        "door: a request for a registered server was answered by another",
    ),
    "a registered server that nobody reaches": (
        lambda s: _asked(s, by="registered", status=404, last=True, models=[], engines=[]),
        "door: a registered server is not reached when all is at rest",
    ),
    "a key that is never let in": (
        lambda s: s.journal("revoked", key="k", before=401, after=401),
        "door: a new key was not let in",
    ),
    "a key that is let in for ever": (
        lambda s: s.journal("revoked", key="k", before=200, after=200),
        "door: a key was let in a second after its end was acknowledged",
    ),
}


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_spoiled_is_found(story: Story, name: str) -> None:
    spoil, expected = SPOILS[name]
    spoil(story)
    assert expected in story.findings()


def test_what_should_be_is_no_finding(story: Story) -> None:
    _asked(story)
    _asked(story, by="replica", replica=C)
    _asked(story, status=0, lost="reset", models=[], engines=[], headers={})
    _refused(story, 503, **{"Retry-After": "1"})
    _refused(story, 404)
    _asked(story, status=503, about=B, last=True, models=[], engines=[], headers=_later())
    story.journal("revoked", key="k", before=200, after=401)
    story.journal("left", found=404, asked=404)
    _asked(story, by="registered", model="f0", models=["f0"], engines=["foreign-1"])
    assert story.findings() == set()


def _later() -> dict[str, str]:
    return {"content-type": "application/problem+json", "retry-after": "1"}


def _port(story: Story) -> int:
    [row] = story.connection.execute("SELECT port FROM replicas WHERE id = %s", (C,)).fetchall()
    return int(row[0])


@contextmanager
def _haproxy(story: Story, *servers: str) -> Iterator[None]:
    """A real one that holds these (``name address and more``)."""
    socket, config = story.folder / "h.sock", story.folder / "h.cfg"
    lines = "\n".join(f"  server {server}" for server in servers)
    config.write_text(_CONFIG.format(socket=socket, port=free_port(), servers=lines))
    process = subprocess.Popen([haproxy_program(Settings.load({})), "-q", "-f", str(config)])
    story.run = replace(story.run, stack=replace(story.run.stack, haproxy_socket=socket))
    try:
        wait_until(lambda: world.routed(socket) is not None, 10, "HAProxy to answer")
        yield
    finally:
        process.kill()
        process.wait()


def test_haproxy_holds_what_is_ready(story: Story) -> None:
    with _haproxy(story, f"{C}-1 127.0.0.1:{_port(story)}", f"{B}-1 127.0.0.1:9 disabled"):
        shown = world.routed(story.run.stack.haproxy_socket)
        assert shown == [
            world.Server("one", f"{C}-1", _port(story), takes=True),
            world.Server("one", f"{B}-1", 9, takes=False),
        ]
        assert story.findings() == set()
        story.unrested()


@pytest.mark.parametrize(
    "servers, expected",
    [
        ((), "routes: a ready replica is not routed"),
        ((f"{C}-1 127.0.0.1:{{port}} disabled",), "routes: a ready replica is not routed"),
        ((f"{C}-2 127.0.0.1:{{port}}",), "routes: HAProxy routes to what is not ready"),
        ((f"{C}-1 127.0.0.1:{{port}}", f"{B}-1 127.0.0.1:9"), "routes: HAProxy routes to what is not ready"),
        ((f"{C}-1 127.0.0.1:9",), "routes: HAProxy routes to another port than the replica's"),
    ],
)
def test_what_haproxy_should_not_hold_is_found(story: Story, servers: tuple[str, ...], expected: str) -> None:
    with _haproxy(story, *(server.format(port=_port(story)) for server in servers)):
        assert expected in story.findings()


def test_a_server_that_nobody_wrote_down_is_seen(story: Story) -> None:
    with _haproxy(story, f"{C}-1 127.0.0.1:{_port(story)}"):
        recorder = Routes(story.run.stack)
        recorder.look()
        assert routes.read(story.folder) == [], "it may come and go with its row between two looks"
        recorder.look()
        recorder.stop()
        [line] = routes.read(story.folder)
        assert (line["op"], line["server"]) == ("unwritten", f"{C}-1")
        assert "routes: HAProxy held a server that is not written down" in story.findings()


def test_a_port_of_two_is_seen(story: Story) -> None:
    recorder = Routes(story.run.stack)
    story.sql("INSERT INTO gateways (id, node, pid) VALUES ('g', 'node', 1)")
    held = (
        "INSERT INTO gateway_servers (gateway, server, replica_id, attempt, node, port)"
        " VALUES ('g', %s, %s, 1, 'node', %s)"
    )
    story.sql(held, f"{C}-1", C, _port(story))
    recorder.look()
    assert routes.read(story.folder) == []
    story.sql(held, f"{B}-1", B, _port(story))
    recorder.look()
    recorder.stop()
    [line] = routes.read(story.folder)
    assert (line["op"], line["server"], line["to"]) == ("leased", f"{B}-1", f"{C}-1")
    assert "routes: a port was leased to another attempt while a gateway may route to it" in story.findings()
