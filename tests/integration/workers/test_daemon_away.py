"""Launches while the container daemon of the host is away: tried again until the time to start is over."""

from __future__ import annotations

from pathlib import Path

from app.usecases.explain import explain
from tests.support.backends import publish, write_pool
from tests.support.site import Site
from workers.backends.docker import DockerBackend
from workers.launching import launch_best


def test_a_launch_whose_daemon_is_away_is_tried_again_and_fails_only_at_last(site: Site, tmp_path: Path) -> None:
    publish(site.ctx, DockerBackend)
    write_pool(site.ctx, "pods", "docker", {"socket": str(tmp_path / "no.sock"), "image": "i"}, slots=1)
    site.change(
        "INSERT INTO units (kind, scope, number) VALUES ('slot', 'pods', 0), ('port', 'here', :port)",
        port=site.settings.ports[0],
    )
    replica = site.create(pool="pods", timeouts={"port_discovery_timeout_s": 600})
    for delay_s in (2, 8, 32, 32):
        assert f"again in {delay_s} s" in launch_best(site.runtime, "pods")
        assert site.replica(replica).state == "scheduling"
        assert explain(site.ctx, replica)["rule"] == "launch_retried"
        site.change("UPDATE clock SET shift = shift + make_interval(secs => :s)", s=delay_s + 1)
    site.change("UPDATE clock SET shift = shift + interval '600 seconds'")
    assert "failed:backend_error" in launch_best(site.runtime, "pods")
    row = site.replica(replica)
    assert (row.state, row.reason) == ("failed", "backend_error")
    assert "no container daemon" in row.message
    # nobody was asked to launch it, so nothing of it can be there
    assert row.released_at is not None
    assert site.leases(replica) == {}
    [released] = site.events(replica, "released")
    assert released.cause == "never launched; leases returned"
