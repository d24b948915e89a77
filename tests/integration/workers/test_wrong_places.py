"""Places that were named wrong or never come back: what never reached them holds nothing, the rest can be given up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.errors import Conflict, Forbidden
from app.usecases import replicas
from app.usecases.explain import explain
from app.usecases.stops import request_stop
from tests.support.elsewhere import ElsewhereBackend
from tests.support.site import POOL, Site
from workers.backends.base import BackendUnavailable
from workers.orphans import end_left_behind
from workers.stopping import carry_out_stop


def point(site: Site, where: str) -> ElsewhereBackend:
    """Correct the pool: from now on it names that place."""
    site.change("UPDATE pools SET options = jsonb_build_object('site', CAST(:where AS text))", where=where)
    backend = site.runtime.backend("elsewhere", {"site": where})
    assert isinstance(backend, ElsewhereBackend)
    return backend


def stop_while_asked(
    site: Site, monkeypatch: pytest.MonkeyPatch, replica: str, trouble: Exception | None = None
) -> None:
    """The launcher is about to launch it when somebody stops it, and then hears of that ``trouble`` or of nothing."""

    def adopt(_: ElsewhereBackend, name: str, timeout_s: float = 5) -> None:
        request_stop(site.ctx, site.actor, replica)
        if trouble is not None:
            raise trouble

    monkeypatch.setattr(ElsewhereBackend, "adopt", adopt)


def test_a_launch_that_reached_no_place_frees_its_slot_when_its_time_is_over(site: Site) -> None:
    point(site, "typo").set("away")
    replica = site.create(timeouts={"port_discovery_timeout_s": 60})
    assert "again in" in site.launch()
    assert list(site.leases(replica)) == ["slot"]
    site.change("UPDATE clock SET shift = shift + interval '61 seconds'")
    assert "failed:backend_error" in site.launch()
    row = site.replica(replica)
    assert (row.state, row.message) == ("failed", "the cluster cannot be asked")
    assert row.released_at is not None
    assert site.leases(replica) == {}
    assert replicas.get(site.ctx, replica)["cleanup"] is None


def test_a_launch_that_reached_no_place_is_stopped_at_once_and_says_what_was_in_its_way(site: Site) -> None:
    point(site, "typo").set("away")
    replica = site.create()
    site.launch()
    asked = request_stop(site.ctx, site.actor, replica)
    row = site.replica(replica)
    assert (row.state, row.reason, row.message) == ("stopped", "cancelled", "the cluster cannot be asked")
    assert row.released_at is not None
    assert site.leases(replica) == {}
    [task] = [one for one in site.tasks(replica) if one.id == asked.task_id]
    assert task.state == "succeeded"


def test_a_launcher_that_hears_late_of_its_place_says_nothing_about_what_was_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = site.create()
    stop_while_asked(site, monkeypatch, replica, BackendUnavailable("it did not answer in time"))
    site.launch()
    row = site.replica(replica)
    assert (row.state, row.message) == ("stopped", "")
    assert row.released_at is not None
    assert site.launch() == "nothing to claim"
    assert site.leases(replica) == {}


def test_a_launcher_that_goes_on_late_launches_nothing_of_what_was_stopped(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = site.create()
    stop_while_asked(site, monkeypatch, replica)
    assert "superseded" in site.launch()
    assert site.replica(replica).state == "stopped"
    assert site.cluster.list_marked("hostler-") == []


def test_a_corrected_pool_takes_along_what_was_never_launched(site: Site) -> None:
    point(site, "typo").set("away")
    replica = site.create()
    own = site.create(replica_config={"backend_options": {"site": "typo"}})
    site.launch()
    site.launch()
    right = point(site, "right")
    site.change("UPDATE clock SET shift = shift + interval '1 minute'")
    site.launch()
    site.launch()
    site.look_until(replica, "ready")
    assert right.list_marked("hostler-") == [site.name(replica)], "who named a place itself stays there"
    assert replicas.get(site.ctx, replica)["status"] == "ready"
    request_stop(site.ctx, site.actor, own)
    site.end(replica)


def test_what_was_launched_stays_where_it_is_when_its_pool_is_changed(site: Site) -> None:
    before = point(site, "before")
    before.set("dies")
    replica = site.create()
    with pytest.raises(SystemExit):
        site.launch()
    before.set("dies", False)
    after = point(site, "after")
    site.change("UPDATE tasks SET not_before = NULL")
    site.launch()
    before.run(site.name(replica))
    site.look_until(replica, "ready")
    assert before.list_marked("hostler-") == [site.name(replica)]
    assert after.list_marked("hostler-") == []
    site.end(replica)


def test_what_may_run_at_a_place_that_is_away_can_be_given_up_by_an_admin(site: Site) -> None:
    gone = point(site, "gone")
    replica = site.ready()
    operator = replace(site.actor, role="operate")
    with pytest.raises(Conflict, match="ask it to end first"):
        replicas.request_abandon(site.ctx, site.actor, replica)
    gone.set("away")
    request_stop(site.ctx, site.actor, replica, force=True)
    assert "unreachable" in carry_out_stop(site.runtime, POOL)
    with pytest.raises(Forbidden):
        replicas.request_abandon(site.ctx, operator, replica)
    assert list(site.leases(replica)) == ["slot"]
    assert f"replica stop {replica} --abandon" in explain(site.ctx, replica)["message"]
    assert replicas.request_abandon(site.ctx, site.actor, replica).already
    shown = replicas.get(site.ctx, replica)
    assert (shown["status"], shown["reason"], shown["cleanup"]) == ("failed", "node_lost", None)
    assert site.leases(replica) == {}
    assert site.name(replica) in shown["message"]
    assert shown["attempts"][-1]["left_behind_at"]
    assert explain(site.ctx, replica)["rule"] == "given_up"
    [told] = site.rows("SELECT actor, message FROM events WHERE replica_id = :id AND kind = 'released'", id=replica)
    assert told.actor == site.actor.name
    assert site.name(replica) in told.message
    [stop] = [one for one in site.tasks(replica) if one.kind == "stop"]
    assert (stop.state, stop.reason) == ("failed", "node_lost")
    # once more is nothing more
    assert replicas.request_abandon(site.ctx, site.actor, replica).already
    came_back(site, gone, replica)


def came_back(site: Site, place: ElsewhereBackend, replica: str) -> None:
    """No pool names that place any more, and still what was left there is ended when it answers."""
    point(site, "elsewhere")
    assert end_left_behind(site.runtime) == 0
    assert site.engines(replica)
    place.set("away", False)
    assert end_left_behind(site.runtime) == 1
    assert not site.engines(replica)
    assert replicas.get(site.ctx, replica)["attempts"][-1]["left_behind_at"] is None
    told = site.rows("SELECT message FROM events WHERE kind = 'orphan' ORDER BY id")
    assert len(told) == 2
    assert "is there after all" in told[0].message
    assert "nothing of it is left" in told[1].message
    assert end_left_behind(site.runtime) == 0


def test_what_failed_says_why_though_it_was_given_up(site: Site) -> None:
    place = point(site, "gone")
    replica = site.ready()
    site.cluster.set("away", False)
    place.say(site.name(replica), liveness="lingering", exit_code=3, message="exited with code 3")
    assert site.look_until(replica, "failed").message == "exited with code 3"
    # the agent's own ask, if it began one, is over: what it hears of the place comes after what is heard here
    site.await_that(lambda: not site.watch.is_busy(replica), "the agent to be done with it")
    place.set("away")
    request_stop(site.ctx, site.actor, replica)
    carry_out_stop(site.runtime, POOL)
    shown = replicas.get(site.ctx, replica)
    assert (shown["reason"], shown["message"]) == ("process_exited", "exited with code 3")
    assert shown["cleanup"]["message"] == "the cluster cannot be asked"
    assert shown["attempts"][-1]["message"] == "exited with code 3"
    found = explain(site.ctx, replica)
    assert "exited with code 3" in found["message"]
    assert "the cluster cannot be asked" in found["message"]
    replicas.request_abandon(site.ctx, site.actor, replica)
    shown: Any = replicas.get(site.ctx, replica)
    assert (shown["reason"], shown["message"]) == ("process_exited", "exited with code 3")
    place.set("away", False)
    (place.folder / f"{site.name(replica)}.said").unlink()
    assert end_left_behind(site.runtime) == 1
