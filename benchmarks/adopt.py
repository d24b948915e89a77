"""``adopt``: ``up`` again over 50 live engines until all are known and ready, beside ``up`` over none."""

from __future__ import annotations

import time

from benchmarks.creates import create_many
from benchmarks.engines import forget, llama_wish, model_path
from benchmarks.result import Result, alternate, result
from benchmarks.stack import Stack, stack, wait_until

ENGINES = 50
MORE_S = 1.0


def run(rounds: int) -> Result:
    with stack() as full, stack() as empty:
        model_path(full)
        ids = create_many(full, llama_wish(), ENGINES)
        wait_until(lambda: full.api.count(status="ready") == ENGINES, 180, f"{ENGINES} replicas ready")
        before = _ports(full)
        pair = alternate(lambda: _again(full, ENGINES), lambda: _again(empty, 0), rounds)
        after = _ports(full)
        forget(full.api, ids)
    mine, floor = pair.medians
    return result(
        "adopt",
        pair,
        unit="s",
        goal=f"<= {MORE_S:g} s more",
        ok=mine - floor <= MORE_S and before == after,
        more_s=round(mine - floor, 3),
        engines=ENGINES,
        same_engines_as_before=before == after,
        warmed="each stack was up once",
        pinned="nothing",
        load_not_the_limit="one client",
    )


def _again(ours: Stack, engines: int) -> float:
    """Seconds from ``hostler up`` until as many are ready as lived through the ``down``."""
    ours.down("--keep-replicas")
    started = time.perf_counter()
    ours.up()
    api = ours.api
    wait_until(lambda: api.count(status="ready") == engines, 60, f"{engines} replicas ready again")
    return time.perf_counter() - started


def _ports(ours: Stack) -> dict[str, tuple[int, int]]:
    """Port and attempt by replica: the same afterwards means that nothing was started anew."""
    rows = ours.api.must(200, "GET", "/api/v1/replicas?status=ready&limit=100")["replicas"]
    return {row["replica_id"]: (row["port"], row["attempt"]) for row in rows}
