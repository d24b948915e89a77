"""A server of somebody else as a replica: launched as any other, its key nowhere to be seen."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from app.usecases import models
from tests.support.crew import Crew
from tests.support.upstreams import KEY, running_upstream


def test_it_serves_and_its_key_is_in_no_row_argument_or_log(crew: Crew, tmp_path: Path) -> None:
    with running_upstream(tmp_path) as upstream:
        # the crew trusts this certificate
        authority = Path(crew.settings.external_ca)
        authority.write_bytes(upstream.authority.read_bytes())
        defaults = {"base_url": upstream.base_url, "diagnostics": "chat"}
        models.create(crew.ctx, crew.actor, {"name": "outside", "engine": "openai-compatible", "defaults": defaults})
        replica = crew.create("outside", mode="replica", environment={"UPSTREAM_API_KEY": KEY})
        row = crew.await_ready(replica, timeout_s=30)
        assert [check["name"] for check in row.diagnostics["checks"]] == ["health", "models", "chat"]
        asked = urllib.request.Request(
            f"{row.base_url}/v1/completions",
            json.dumps({"model": "outside", "prompt": "a", "max_tokens": 2}).encode(),
            {"Authorization": f"Bearer {crew.ctx.engine_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == 2
        for pid in crew.engines(replica):
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        for file in crew.attempt_folder(replica).iterdir():
            if file.is_file():
                assert KEY.encode() not in file.read_bytes(), file
        for table in ("replicas", "attempts", "tasks", "events"):
            (found,) = crew.rows(f"SELECT count(*) AS n FROM {table} t WHERE t::text LIKE :key", key=f"%{KEY}%")
            assert found.n == 0, table
        crew.end(replica)


def test_a_name_that_leads_to_one_of_our_own_ports_is_refused_where_it_is_launched(crew: Crew) -> None:
    # a name is no address when it is asked for: where it leads is seen at the launch
    defaults = {"base_url": f"http://localhost:{crew.settings.port}/v1"}
    models.create(crew.ctx, crew.actor, {"name": "inwards", "engine": "openai-compatible", "defaults": defaults})
    row = crew.await_state(crew.create("inwards", mode="replica"), "failed")
    assert (row.reason, "Hostler's own ports" in row.message) == ("invalid_config", True)


def test_a_name_that_nobody_knows_is_refused_over_http(crew: Crew) -> None:
    defaults = {"base_url": "http://no-such-host.invalid/v1"}
    models.create(crew.ctx, crew.actor, {"name": "nowhere", "engine": "openai-compatible", "defaults": defaults})
    row = crew.await_state(crew.create("nowhere", mode="replica"), "failed")
    assert (row.reason, "cannot be looked up" in row.message) == ("invalid_config", True)
