"""A pool whose backend runs things elsewhere, with a worker and an agent that tests turn by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from app.usecases import reconciling, watching
from app.usecases.creates import request_create
from app.usecases.stops import request_stop
from tests.support.backends import publish
from tests.support.elsewhere import ElsewhereBackend
from tests.support.keys import ADMIN, INSERT_ADMIN
from tests.support.marks import end_marked
from tests.support.records import Records
from tests.support.services import Hands
from workers.backends.registry import BACKENDS
from workers.bootstrap import Runtime
from workers.launching import launch_best
from workers.probes.batch import Prober
from workers.stopping import carry_out_stop
from workers.watch import Watch

POOL = "cluster"


class Site(Records):
    """A worker and an agent, turned by hand."""

    def __init__(self, settings: Settings, prober: Prober) -> None:
        self.runtime = Runtime(settings, "agent")
        super().__init__(settings, self.runtime.ctx, ADMIN)
        self.watch = Watch(self.runtime)
        self.prober = prober

    @property
    def cluster(self) -> ElsewhereBackend:
        backend = self.runtime.backend("elsewhere")
        assert isinstance(backend, ElsewhereBackend)
        return backend

    def create(self, **body: Any) -> str:
        body = {"server_mode": "replica_mock", "model_name": "m", "pool": POOL, **body}
        return request_create(self.ctx, self.actor, body).replica_id

    def launch(self) -> str:
        return launch_best(self.runtime, POOL)

    def look(self) -> None:
        """One look at everything, as if all of it were due."""
        self.change("UPDATE replicas SET next_check_at = hostler_now(), state_since = hostler_now()")
        self.watch.look(watching.claim_due(self.ctx, None), self.prober)

    def look_until(self, replica: str, *states: str) -> Any:
        def reached() -> Any:
            self.look()
            row = self.replica(replica)
            return row if row.state in states else None

        return self.await_that(reached, f"{replica} being {' or '.join(states)}", replica_id=replica)

    def members(self, service_id: str) -> list[Any]:
        """Rows of its replicas, oldest first, once all that is due of its service is done."""
        reconciling.sweep(self.ctx)
        return Hands(self.ctx).replicas(service_id)

    def ready(self, **body: Any) -> str:
        replica = self.create(**body)
        self.launch()
        self.look_until(replica, "ready")
        return replica

    def end(self, replica: str) -> None:
        request_stop(self.ctx, self.actor, replica, force=True)
        carry_out_stop(self.runtime, POOL)

        def released() -> bool:
            self.look()
            return self.replica(replica).released_at is not None

        self.await_that(released, f"{replica} being seen gone", replica_id=replica)
        assert self.leases(replica) == {}


@contextmanager
def open_site(settings: Settings, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A site on a fresh database; nothing of it runs afterwards."""
    monkeypatch.setitem(BACKENDS, "elsewhere", ElsewhereBackend)
    (folder / "state").mkdir(mode=0o700)
    settings = replace(settings, state_dir=folder / "state", node_name="here", unhealthy_after=2)
    with Prober() as prober:
        site = Site(settings, prober)
        site.change(INSERT_ADMIN)
        publish(site.ctx, ElsewhereBackend)
        site.change(
            "INSERT INTO pools (name, backend, slots) VALUES ('cluster', 'elsewhere', 4);"
            " INSERT INTO units (kind, scope, number) SELECT 'slot', 'cluster', n FROM generate_series(0, 3) n"
        )
        yield site
        site.watch.close()
        left = end_marked(f"hostler-{site.ctx.namespace}-")
        site.ctx.close()
    assert not left, f"left running: {left}"
