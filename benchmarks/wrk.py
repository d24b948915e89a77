"""Runs wrk, the load generator in C, pinned to a core of its own; what it saw, and how busy that core was."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass

_SCRIPT = """
wrk.method = "POST"
wrk.body = %(body)s
%(headers)s
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "us": %%d, "p50_us": %%d, "p99_us": %%d, "max_us": %%d, "failed": %%d, "refused": %%d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.connect + e.read + e.write + e.timeout, e.status))
end
"""


@dataclass(frozen=True)
class Seen:
    """``failed``: no answer; ``refused``: an answer other than 2xx and 3xx."""

    requests: int
    per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    failed: int
    refused: int
    cpu_share: float


def wrk(
    port: int, path: str, body: str, headers: Mapping[str, str], *, connections: int, seconds: float, core: int
) -> Seen:
    """POST ``body`` over so many kept connections, each with one request in flight, for a whole number of seconds."""
    program = shutil.which("wrk")
    if program is None:
        raise RuntimeError("there is no wrk; install Debian's (apt-get install wrk)")
    lines = "\n".join(f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers.items())
    with tempfile.NamedTemporaryFile("w", prefix="hb-wrk.", suffix=".lua") as script:
        script.write(_SCRIPT % {"body": _lua(body), "headers": lines})
        script.flush()
        argv = ["taskset", "-c", str(core), program, "--threads", "1", "--connections", str(connections)]
        argv += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "30s", "--script", script.name]
        before, began = os.times(), time.monotonic()
        done = subprocess.run(
            [*argv, f"http://127.0.0.1:{port}{path}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            check=False,
        )
        after, took_s = os.times(), time.monotonic() - began
    if done.returncode:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    used_s = after.children_user + after.children_system - before.children_user - before.children_system
    return Seen(
        requests=found["requests"],
        per_s=found["requests"] / (found["us"] / 1e6),
        p50_ms=found["p50_us"] / 1000,
        p99_ms=found["p99_us"] / 1000,
        max_ms=found["max_us"] / 1000,
        failed=found["failed"],
        refused=found["refused"],
        cpu_share=used_s / took_s,
    )


def _lua(text: str) -> str:
    # what JSON writes of plain ASCII is a Lua string too
    assert text.isascii(), "bodies and headers of a benchmark are ASCII"
    return json.dumps(text)
