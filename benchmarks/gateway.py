"""``gateway``: what the door of a stack costs, beside nginx and the routers that others would take, in one run.

The door does all it does in service: it knows the caller by the key, holds the key's limits, reads the model in the
body, picks the least loaded replica and says which one answered. nginx only passes on. Each of them has one core to
itself and the same two engines behind it, which are replicas of the stack and cost next to nothing.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import tokens, upstream
from benchmarks.peers import programs
from benchmarks.peers.base import PATH, Gateway, asked
from benchmarks.result import Pair, Result, joined, result
from benchmarks.stack import Stack, stack, wait_until
from benchmarks.wrk import Seen, wrk
from tests.support.venvs import NotInstalled

CONNECTIONS = 64
STREAMS = 1000
LOAD_S, ALONE_S, STREAMS_S, WARM_S = 3, 2, 4.0, 1
GATEWAY_CORE, LOAD_CORE = 0, 3
UPSTREAM_CORES = (1, 2)
#: Peer -> (how it is started, our requests a second for each of its own).
PEERS = {
    "vllm-router": (programs.vllm_router, 2.0),
    "sglang-router": (programs.sglang_router, 2.5),
    "litellm": (programs.litellm, 300.0),
}
#: Never reached here, so that no request is refused, but counted for each.
LIMITS = {"requests_per_second": 1_000_000, "concurrent_requests": 100_000}
BODY = json.dumps(
    {"model": upstream.MODEL, "messages": [{"role": "user", "content": "are you ready?"}], "max_tokens": 16}
)
ROUTED_S = 30
#: As fine as wrk measures: on a busy machine the upstream alone may have the longer tail.
LEAST_MS = 0.001


@dataclass
class Samples:
    """What one gateway showed, one entry a round."""

    per_core: list[float] = field(default_factory=list)
    load: list[Seen] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    alone: list[Seen] = field(default_factory=list)
    streams: list[tokens.Report] = field(default_factory=list)


def run(rounds: int) -> Result:
    if len(os.sched_getaffinity(0)) < 4:
        raise RuntimeError("four cores are needed: the gateway's, two for what is behind it, one for the load")
    left_out: dict[str, str] = {}
    with ExitStack() as up, _hostler() as (ours, upstreams):
        sides = [ours, up.enter_context(programs.nginx(GATEWAY_CORE, upstreams))]
        for name, (start, _) in PEERS.items():
            try:
                sides.append(up.enter_context(start(GATEWAY_CORE, upstreams)))
            except NotInstalled as error:
                left_out[name] = str(error)
        direct = Gateway("direct", upstreams[0], lambda: ())
        seen = {side.name: Samples() for side in (direct, *sides)}
        for side in sides:
            _loaded(side, CONNECTIONS, WARM_S)
        for number in range(rounds):
            turn = number % len(sides)
            for side in (direct, *sides[turn:], *sides[:turn]):
                _measure(side, seen[side.name])
    return joined("gateway", _told(seen, left_out))


def _measure(side: Gateway, into: Samples) -> None:
    before = side.cpu_s()
    load = _loaded(side, CONNECTIONS, LOAD_S)
    busy = (side.cpu_s() - before) / (load.requests / load.per_s)
    into.load.append(load)
    into.busy.append(busy)
    # a gateway that its core does not hold up would be served by a smaller share of one
    into.per_core.append(load.per_s / min(1.0, busy) if busy else 0.0)
    into.alone.append(_loaded(side, 1, ALONE_S))
    spec = tokens.Spec(side.port, dict(side.headers), path=PATH, streams=STREAMS, seconds=STREAMS_S, core=LOAD_CORE)
    into.streams.append(tokens.run(spec))


def _loaded(side: Gateway, connections: int, seconds: float) -> Seen:
    headers = {"Content-Type": "application/json", **side.headers}
    found = wrk(side.port, PATH, BODY, headers, connections=connections, seconds=seconds, core=LOAD_CORE)
    if found.failed or found.refused:
        raise RuntimeError(f"{side.name}: {found.failed} requests failed and {found.refused} were refused")
    return found


def _told(seen: dict[str, Samples], left_out: dict[str, str]) -> list[Result]:
    ours, nginx = seen["hostler"], seen["nginx"]

    def of(read: Callable[[Samples], Sequence[float]], other: Samples = nginx) -> Pair:
        return Pair(tuple(read(ours)), tuple(read(other)))

    per_core = of(lambda one: one.per_core)
    parts = [
        result(
            "gateway",
            per_core,
            unit="req/s per core",
            goal=">= 0.9 of nginx",
            ok=per_core.ratio >= 0.9,
            load=f"wrk, {CONNECTIONS} connections, {LOAD_S} s a round",
            pinned=f"each gateway to core {GATEWAY_CORE}, the two upstreams to {UPSTREAM_CORES}, with the rest of the "
            f"stack beside them, the load to {LOAD_CORE}",
            warmed=f"{WARM_S} s of the same load on each",
            load_not_the_limit=f"the load makes {seen['direct'].load[-1].per_s:.0f} req/s "
            f"against one upstream alone; its core was busy {max(one.cpu_share for one in ours.load):.0%} with ours "
            f"and {max(one.cpu_share for one in nginx.load):.0%} with nginx",
            busy_cores=_rounded({name: one.busy for name, one in seen.items() if name != "direct"}),
            p50_p99_ms={name: [one.load[-1].p50_ms, one.load[-1].p99_ms] for name, one in seen.items()},
            not_measured=left_out,
        )
    ]
    for name, (_, goal) in PEERS.items():
        if name in seen:
            pair = of(lambda one: one.per_core, seen[name])
            told = f">= {goal:g}x {name}"
            parts.append(result(f"gateway, {name}", pair, unit="req/s per core", goal=told, ok=pair.ratio >= goal))
    parts += [_added(seen, "p50", lambda one: one.p50_ms), _added(seen, "p99", lambda one: one.p99_ms)]
    first = of(lambda one: [report.ttft_p99_ms for report in one.streams])
    parts.append(
        result(
            "gateway, TTFT p99",
            first,
            unit="ms",
            goal="<= 2x nginx's",
            ok=first.ratio <= 2,
            load=f"{STREAMS} streams at once, {1 / upstream.GAP_S:g} tokens a second each, {STREAMS_S:g} s a round",
            load_not_the_limit="the reader's core was busy "
            f"{max(report.cpu_share for report in ours.streams):.0%} with ours; see `direct`",
            ttft_p50_p99_ms=_streams(seen, lambda one: [one.ttft_p50_ms, one.ttft_p99_ms]),
            relay_p50_p99_ms=_streams(seen, lambda one: [one.relay_p50_ms, one.relay_p99_ms]),
            streams_cut_off=_streams(seen, lambda one: one.failed),
        )
    )
    rate = of(lambda one: [report.tokens_per_s for report in one.streams])
    whole = all(report.failed == 0 and report.share > 0.98 for report in ours.streams)
    shares = _streams(seen, lambda one: one.share)
    parts.append(
        result("gateway, streams", rate, unit="tokens/s", goal="all that were sent", ok=whole, share_of_sent=shares)
    )
    relay = of(lambda one: [report.relay_p99_ms for report in one.streams])
    parts.append(result("gateway, relay p99", relay, unit="ms", goal="<= 2x nginx's", ok=relay.ratio <= 2))
    return parts


def _added(seen: dict[str, Samples], which: str, read: Callable[[Seen], float]) -> Result:
    """Over what the upstream alone takes in the same round, at one connection."""
    floor = [read(one) for one in seen["direct"].alone]

    def over(name: str) -> tuple[float, ...]:
        return tuple(max(LEAST_MS, read(one) - least) for one, least in zip(seen[name].alone, floor, strict=True))

    pair = Pair(over("hostler"), over("nginx"))
    others = _rounded({name: over(name) for name in PEERS if name in seen})
    return result(
        f"gateway, added {which}", pair, unit="ms", goal="told beside nginx's", ok=True, direct_ms=floor, peers=others
    )


def _streams(seen: dict[str, Samples], read: Callable[[tokens.Report], Any]) -> dict[str, Any]:
    """The middle round's, by what the first figure says."""
    return {
        name: sorted(read(one) for one in samples.streams)[len(samples.streams) // 2] for name, samples in seen.items()
    }


def _rounded(values: dict[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: [round(value, 3) for value in row] for name, row in values.items()}


@contextmanager
def _hostler() -> Iterator[tuple[Gateway, list[int]]]:
    """The door of a stack of its own, with two replicas behind it; and these replicas' ports, for the others."""
    settings = {"HOSTLER_GATEWAY_THREADS": "1", "HOSTLER_WEB_WORKERS": "1", "HOSTLER_WORKER_CONCURRENCY": "2"}
    with stack(**settings) as ours:
        api = ours.api
        # where the stack's own user may read it
        program = Path(shutil.copy(upstream.__file__, ours.state_dir.parent / "upstream.py"))
        program.chmod(0o644)
        ports = []
        for core in UPSTREAM_CORES:
            command = ["/usr/bin/env", "python3", "-I", str(program), "{port}", "{host}", str(core)]
            wish = {"server_mode": "platform_workload", "model_name": upstream.MODEL, "pool": "local"}
            made = api.create({**wish, "platform_config": {"command": command}}, prefer="wait=30")
            ports.append(int(urlsplit(api.replica(made)["base_url"]).port or 0))
        key = {"name": "bench", "role": "infer", "models": [upstream.MODEL], "limits": LIMITS}
        secret = api.must(201, "POST", "/api/v1/keys", key)["key"]
        door = Gateway("hostler", ours.port, lambda: pids, {"Authorization": f"Bearer {secret}"})
        pids = ours.pids("gateway")
        wait_until(lambda: asked(door) == "", ROUTED_S, "the door routes to the replicas", every_s=0.1)
        _pin(ours, pids)
        yield door, ports


def _pin(ours: Stack, gateway: Sequence[int]) -> None:
    """The gateway to its core, everything else of the stack to where the upstreams are."""
    for row in ours.processes():
        pid = int(row["pid"])
        if row["role"] != "engine":
            pin(pid, {GATEWAY_CORE} if pid in gateway else set(UPSTREAM_CORES))


def pin(pid: int, cores: set[int]) -> None:
    """All threads of a process; those that end meanwhile need none."""
    with suppress(FileNotFoundError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), cores)
