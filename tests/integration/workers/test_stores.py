"""Stores launched the whole way: their data outlive attempts, and a store that cannot be is told why."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from app.usecases import models
from app.usecases.restarts import request_restart
from app.usecases.served_models import list_served
from tests.support.crew import Crew
from tests.support.qdrant_edge import DOT, VECTOR, ask


def _store(crew: Crew, name: str, engine: str) -> str:
    models.create(crew.ctx, crew.actor, {"name": name, "engine": engine})
    return crew.create(name, mode="replica")


def test_a_replica_of_no_service_keeps_its_data_by_its_own_id(crew: Crew) -> None:
    replica = _store(crew, "vectors", "qdrant-edge")
    row = crew.await_ready(replica)
    key = {"Authorization": f"Bearer {crew.ctx.engine_key}"}
    assert [check["name"] for check in row.diagnostics["checks"]] == ["ready", "collections"]
    assert ask(row, "PUT", "/collections/c", {"vectors": DOT}, headers=key)[0] == 200
    assert ask(row, "PUT", "/collections/c/points", {"points": [{"id": 1, "vector": VECTOR}]}, headers=key)[0] == 200
    folder = crew.settings.state_dir / "data" / replica
    assert folder.stat().st_mode & 0o777 == 0o700
    (pid,) = crew.engines(replica)
    assert not [word for word in Path(f"/proc/{pid}/cmdline").read_text().split("\0") if crew.ctx.engine_key in word]
    assert "vectors" in {one["id"] for one in list_served(crew.ctx, crew.actor)}, "the catalogue names it"
    assert not next(one for one in list_served(crew.ctx, crew.actor) if one["id"] == "vectors")["loaded"]
    os.kill(pid, signal.SIGKILL)
    crew.await_state(replica, "failed")
    crew.await_released(replica)
    request_restart(crew.ctx, crew.actor, replica)
    again = crew.await_ready(replica)
    assert again.attempt == 2
    assert ask(again, "POST", "/collections/c/points/count", {}, headers=key)[1]["result"] == {"count": 1}
    crew.end(replica)
    assert (folder / "collections").is_dir(), "nobody deletes it but a person"


def test_without_qdrant_a_create_fails_and_says_what_to_do(crew: Crew) -> None:
    replica = _store(crew, "no-qdrant", "qdrant")
    row = crew.await_state(replica, "failed", timeout_s=30)
    assert row.reason == "launch_failed"
    assert "HOSTLER_QDRANT_COMMAND" in row.message
    crew.await_released(replica)


def test_a_store_does_not_begin_anew_where_its_data_are_not(crew: Crew) -> None:
    replica = _store(crew, "moved", "qdrant-edge")
    crew.await_ready(replica)
    crew.end(replica)
    folder = crew.settings.state_dir / "data" / replica
    away = folder.with_name("moved-away")
    folder.rename(away)
    crew.change("UPDATE attempts SET node = 'another' WHERE replica_id = :id", id=replica)
    request_restart(crew.ctx, crew.actor, replica)
    row = crew.await_state(replica, "failed")
    assert row.reason == "launch_failed"
    assert f"on host another, in data/{replica}" in row.message
    crew.await_released(replica)
    assert not folder.exists()
    # moved here by hand it is at home again
    away.rename(folder)
    request_restart(crew.ctx, crew.actor, replica)
    crew.await_ready(replica)
    crew.end(replica)
