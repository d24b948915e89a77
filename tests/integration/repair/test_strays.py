"""Processes of an attempt that outlived its leader, and engines that outlived their shim."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil

from app.stack.layout import Layout
from app.stack.processes import engines
from app.stack.roles import SHIM
from tests.support.crew import Crew

#: Serves; beside it a child of its group and a daemon in a session of its own.
_FAMILY = """
import http.server, os, sys, time
if os.fork() == 0:
    time.sleep(3600)
if os.fork() == 0:
    os.setsid()
    time.sleep(3600)
class Fine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Fine).serve_forever()
"""


def test_what_outlives_its_leader_is_killed_before_anything_is_given_back(crew: Crew) -> None:
    config = {"command": [sys.executable, "-I", "-c", _FAMILY, "{port}"]}
    replica = crew.create(mode="platform_workload", platform_config=config, run_diagnostics=False)
    neighbour = crew.create()
    crew.await_ready(neighbour)
    leader = crew.await_ready(replica) and crew.attempt(replica).backend_ref["ref"]["pid"]
    family = crew.engines(replica)
    assert len(family) == 3
    os.kill(leader, signal.SIGKILL)
    row = crew.await_state(replica, "failed")
    assert row.reason in ("process_exited", "out_of_memory")
    crew.await_released(replica)
    assert crew.engines(replica) == []
    assert len(crew.engines(neighbour)) == 1
    assert crew.replica(neighbour).state == "ready"
    crew.end(neighbour)


def test_an_engine_whose_shim_died_serves_on_with_another_one(crew: Crew) -> None:
    replica = crew.create()
    crew.await_ready(replica)
    [engine] = crew.engines(replica)
    [shim] = _shims(crew, replica)
    shim.kill()
    crew.await_that(lambda: [one for one in _shims(crew, replica) if one.pid != shim.pid], "another shim")
    assert crew.engines(replica) == [engine]
    assert crew.replica(replica).state == "ready"
    crew.end(replica)
    assert crew.attempt(replica).ended_at is not None


def _shims(crew: Crew, replica: str) -> list[psutil.Process]:
    name = crew.name(replica)
    return [
        one.process
        for one in engines(Layout(Path(crew.settings.state_dir)))
        if one.role == SHIM and one.attempt == name
    ]
