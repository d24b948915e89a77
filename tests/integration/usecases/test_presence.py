"""What a host says it has is what can be leased of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases import presence
from app.usecases.context import Context
from app.usecases.health import look
from app.usecases.presence import NodeFacts, NodeTaken

FACTS = NodeFacts(1, 1, [], "boot-one", "test")


def test_gpus_are_leased_by_the_number_the_driver_gives_them(settings: Settings) -> None:
    """One that fell off the bus is not given out, and the one behind it keeps its number."""
    ctx = Context.open(settings)
    try:
        for seen, leasable in (([0, 1, 2], [0, 1, 2]), ([0, 2], [0, 2]), ([0, 1, 2], [0, 1, 2]), ([], [])):
            presence.register_node(ctx, NodeFacts(1, 1, [{"index": index} for index in seen], "boot", "test"))
            with ctx.database.read() as connection:
                query = "SELECT number FROM units WHERE kind = 'gpu' AND NOT retired ORDER BY number"
                assert list(connection.execute(text(query)).scalars()) == leasable
    finally:
        ctx.close()


def test_two_living_hosts_cannot_have_one_name(settings: Settings) -> None:
    """Each would look for the other's replicas in its own folder, and find them gone."""
    here, there = (Context.open(replace(settings, state_dir=settings.state_dir / name)) for name in ("here", "there"))
    try:
        presence.register_node(here, FACTS)
        presence.register_node(here, FACTS)
        for other, boot in ((there, "boot-one"), (here, "boot-two")):
            with pytest.raises(NodeTaken, match="HOSTLER_NODE_NAME"):
                presence.register_node(other, replace(FACTS, boot_id=boot))
            assert "HOSTLER_NODE_NAME" in presence.holder_of_name(other, boot)
            assert not presence.heartbeat_node(other, boot, canary_sent=False)
        assert presence.heartbeat_node(here, FACTS.boot_id, canary_sent=True)
        assert presence.holder_of_name(here, FACTS.boot_id) == ""
        _change(here, "UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 minute'")
        assert presence.holder_of_name(there, FACTS.boot_id) == ""
        presence.register_node(there, FACTS)
        assert not presence.heartbeat_node(here, FACTS.boot_id, canary_sent=False), "its name is another's by now"
    finally:
        here.close()
        there.close()


def test_a_host_says_where_it_is_and_which_pools_it_serves(settings: Settings) -> None:
    told = replace(settings, node_address="10.1.2.3", node_pools="far, near")
    contexts = [Context.open(told), Context.open(settings)]
    try:
        for name in ("far", "other"):
            _change(contexts[0], f"INSERT INTO pools (name, backend, slots) VALUES ('{name}', 'process', 1)")
        presence.register_node(contexts[0], FACTS)
        [row] = _rows(contexts[0], "SELECT address, pools FROM nodes")
        assert (row.address, row.pools) == ("10.1.2.3", ["far", "near"])
        assert presence.pools(contexts[0]) == ["far"], "what there is of what it serves"
        presence.register_node(contexts[1], FACTS)
        [row] = _rows(contexts[0], "SELECT address, pools FROM nodes")
        assert (row.address, row.pools) == ("127.0.0.1", None)
        assert {"far", "other"} <= set(presence.pools(contexts[1]))
    finally:
        for ctx in contexts:
            ctx.close()


def test_a_host_that_left_on_purpose_is_no_problem(settings: Settings) -> None:
    ctx = Context.open(settings)
    try:
        presence.register_node(ctx, FACTS)
        _change(ctx, "UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 minute'")
        assert look(ctx.database).silent_nodes == [settings.node_name]
        presence.record_left(ctx)
        assert look(ctx.database).silent_nodes == []
        presence.register_node(ctx, FACTS)
        _change(ctx, "UPDATE nodes SET heartbeat_at = hostler_now() - interval '1 minute'")
        assert look(ctx.database).silent_nodes == [settings.node_name], "it is back, and what it did before is over"
    finally:
        ctx.close()


def _change(ctx: Context, statement: str) -> None:
    with ctx.database.begin() as connection:
        connection.execute(text(statement))


def _rows(ctx: Context, query: str) -> list[Any]:
    with ctx.database.read() as connection:
        return list(connection.execute(text(query)))
