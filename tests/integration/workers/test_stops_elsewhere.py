"""Stops at a place that just went away: the first one is asked with little patience, the next ones are the agent's."""

from __future__ import annotations

import pytest

from app.usecases.stops import request_stop
from tests.support.elsewhere import ElsewhereBackend
from tests.support.site import POOL, Site
from workers import stopping
from workers.backends.base import Handle, Observation
from workers.stopping import carry_out_stop


def test_one_place_that_is_away_holds_up_no_stops_at_others(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = site.ready(), site.ready()
    site.change('UPDATE pools SET options = \'{"site": "south"}\'')
    south = site.ready()
    asked: list[tuple[str, float]] = []
    stop = ElsewhereBackend.stop

    def watched(
        self: ElsewhereBackend, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5
    ) -> Observation:
        asked.append((handle.name, timeout_s))
        return stop(self, handle, grace_s=grace_s, force=force, timeout_s=timeout_s)

    monkeypatch.setattr(ElsewhereBackend, "stop", watched)
    site.cluster.set("away")
    for replica in (first, second, south):
        request_stop(site.ctx, site.actor, replica, force=True)
    outcomes = [carry_out_stop(site.runtime, POOL).rpartition("=")[2] for _ in range(3)]
    assert outcomes == ["unreachable", "unreachable", "gone"]
    assert site.replica(first).message.startswith("stop: ")
    assert asked == [(site.name(first), stopping.ASK_S), (site.name(south), stopping.ASK_S)]
    site.cluster.set("away", False)
    for replica in (first, second):
        site.await_that(lambda one=replica: site.look() or site.replica(one).released_at, "its end by the agent")
        assert site.replica(replica).state == "stopped"
    assert site.replica(first).message == "its stop was asked for more than once; then it was seen gone"
    assert site.replica(south).message == ""
