"""Whether a pool's place answers: as the hosts that serve it found it, and of nobody else's word."""

from __future__ import annotations

from typing import Any

import pytest

from app.usecases import pools
from tests.support.site import POOL, Site
from workers.orphans import clear_orphans


@pytest.fixture
def here(site: Site) -> str:
    """The host that asks, which is heard of."""
    name = site.runtime.settings.node_name
    site.change("INSERT INTO nodes (name) VALUES (:name) ON CONFLICT (name) DO NOTHING", name=name)
    site.change("UPDATE nodes SET heartbeat_at = hostler_now()")
    return str(name)


def told(site: Site) -> list[dict[str, Any]]:
    shown = pools.get(site.ctx, POOL)["places"]
    listed, _, _ = pools.list_pools(site.ctx, {}, 100, None)
    assert next(one["places"] for one in listed if one["name"] == POOL) == shown
    return [dict(one) for one in shown]


def test_a_place_answers_or_does_not_and_since_when(site: Site, here: str) -> None:
    assert told(site) == [], "nobody asked yet"
    clear_orphans(site.runtime)
    (first,) = told(site)
    assert (first["node"], first["answers"], first["message"]) == (here, True, "")
    assert first["since"] == first["asked_at"]
    clear_orphans(site.runtime)
    (second,) = told(site)
    assert second["since"] == first["since"]
    assert second["asked_at"] > first["asked_at"]
    site.cluster.set("away")
    clear_orphans(site.runtime)
    (away,) = told(site)
    assert not away["answers"]
    assert away["message"]
    assert away["since"] == away["asked_at"] > second["asked_at"]
    site.cluster.set("away", False)
    clear_orphans(site.runtime)
    assert told(site)[0]["answers"]


def test_nothing_is_told_of_a_place_that_the_pool_names_no_more(site: Site, here: str) -> None:
    site.cluster.set("away")
    clear_orphans(site.runtime)
    pools.update(site.ctx, site.actor, POOL, {"options": {"site": "other"}})
    assert told(site) == [], "the other one was not asked yet"
    clear_orphans(site.runtime)
    (one,) = told(site)
    assert one["answers"]
    assert one["since"] == one["asked_at"]


def test_a_host_that_is_silent_has_no_say(site: Site, here: str) -> None:
    clear_orphans(site.runtime)
    site.change("UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 minute'")
    assert told(site) == []
