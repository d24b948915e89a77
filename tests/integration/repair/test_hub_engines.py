"""vLLM and SGLang (their stand-ins) that hang, are busy, die, or do not want to end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.usecases import models
from app.usecases.restarts import request_restart
from tests.support.crew import Crew

ENGINES = pytest.mark.parametrize("engine", ["vllm", "sglang"])


@pytest.fixture(scope="module", autouse=True)
def catalogue(crew: Crew) -> None:
    for engine in ("vllm", "sglang"):
        body = {"name": f"{engine}-model", "engine": engine, "source": "Qwen/Qwen2.5-0.5B-Instruct"}
        models.create(crew.ctx, crew.actor, body)


def _create(crew: Crew, engine: str, *, diagnostics: bool = False, **knobs: Any) -> str:
    return crew.create(
        f"{engine}-model",
        mode="replica",
        run_diagnostics=diagnostics,
        environment={"STANDIN_KNOBS": json.dumps(knobs)},
    )


@ENGINES
def test_one_that_hangs_is_told_by_its_own_counters(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, hang_after_n=2, diagnostics=True)
    crew.await_ready(replica)
    message = crew.await_state(replica, "unhealthy").message
    assert "hung: one token was asked for and did not come" in message
    assert "no request finished and no token was made in 3 looks" in message
    crew.end(replica)


@ENGINES
def test_one_that_hangs_before_it_ever_counted_is_told_too(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, hang=True)
    crew.await_ready(replica)
    assert "hung" in crew.await_state(replica, "unhealthy").message
    crew.end(replica)


@ENGINES
def test_one_that_is_busy_with_others_is_not_hung(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, busy_tokens_per_s=50)
    crew.await_ready(replica)
    seen: set[str] = set()

    def looked_twice() -> bool:
        deep = (crew.replica(replica).last_health or {}).get("deep") or {}
        seen.update([deep["at"]] if "busy" in deep.get("detail", "") else [])
        return len(seen) >= 2

    crew.await_that(looked_twice, "two deep probes that found it busy", replica_id=replica)
    assert "unhealthy" not in crew.path(replica)
    crew.end(replica)


@ENGINES
def test_one_that_dies_is_failed_with_its_code_and_its_log(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, exit_after_s=1, exit_code=9, log_lines=["last words"])
    row = crew.await_state(replica, "failed")
    assert (row.reason, crew.attempt(replica).exit_code) == ("process_exited", 9)
    assert "last words" in crew.attempt(replica).log_tail
    assert crew.ctx.engine_key not in crew.attempt(replica).log_tail
    crew.await_released(replica)


@ENGINES
def test_one_whose_memory_does_not_suffice_says_so(crew: Crew, engine: str) -> None:
    said = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 14.00 GiB."
    replica = _create(crew, engine, exit_on_start=1, log_lines=[said])
    row = crew.await_state(replica, "failed")
    assert row.reason == "out_of_memory"
    assert "Tried to allocate 14.00 GiB" in row.message
    crew.await_released(replica)


@ENGINES
def test_one_that_ignores_sigterm_ends_by_force_and_starts_anew(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, ignore_sigterm=True)
    crew.await_ready(replica)
    crew.stop_replica(replica, grace_s=1)
    crew.await_released(replica)
    assert crew.engines(replica) == []
    request_restart(crew.ctx, crew.actor, replica)
    crew.await_ready(replica)
    assert crew.starts(replica, attempt=2) == 1
    crew.end(replica)


@ENGINES
def test_one_that_is_stopped_while_it_loads_is_gone(crew: Crew, engine: str) -> None:
    replica = _create(crew, engine, startup_s=60)
    crew.await_state(replica, "waiting_for_ready")
    crew.stop_replica(replica)
    assert crew.await_released(replica).state == "stopped"
    assert crew.engines(replica) == []
