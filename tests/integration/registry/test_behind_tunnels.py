"""What is behind a tunnel is told by the local end of the host that is asked, and not at all where it has none."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from app.domain.capabilities import Query
from app.errors import NoMatch
from app.usecases import service_views, tunnels
from app.usecases.context import Context
from app.usecases.creates import request_create
from app.usecases.registry import Registry
from tests.support.embedded import wait_until
from tests.support.keys import ADMIN, INSERT_ADMIN

QUERY: Query = (("model", "m"),)


@pytest.fixture
def attempt(ctx: Context) -> int:
    """Of a ready replica that listens at 10.1.1.1:8000, behind a tunnel."""
    with ctx.database.begin() as connection:
        connection.execute(text(INSERT_ADMIN))
    asked = request_create(ctx, ADMIN, {"server_mode": "replica_mock", "model_name": "m"})
    with ctx.database.begin() as connection:
        options = json.dumps({"tunnel": True, "ssh": {"host": "login"}})
        connection.execute(
            text(
                "UPDATE replicas SET attempt = 1, state = 'ready', host = '10.1.1.1', port = 8000,"
                " base_url = 'http://10.1.1.1:8000',"
                " spec = jsonb_set(spec, '{resolved,backend_options}', CAST(:options AS jsonb)) WHERE id = :id"
            ),
            {"id": asked.replica_id, "options": options},
        )
        connection.execute(
            text(
                "INSERT INTO events (kind, actor, cause, replica_id, from_state, to_state)"
                " VALUES ('transition', 'hostler', 'sweep', :id, 'waiting_for_ready', 'ready')"
            ),
            {"id": asked.replica_id},
        )
        return int(
            connection.execute(
                text(
                    "INSERT INTO attempts (replica_id, number, name, pool, backend) VALUES"
                    " (:id, 1, 'a-' || :id, 'local', 'process') RETURNING id"
                ),
                {"id": asked.replica_id},
            ).scalar_one()
        )


def end(ctx: Context, attempt: int, node: str, state: str, port: int) -> None:
    with ctx.database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO tunnels (attempt_id, node, port, to_host, to_port, state) VALUES"
                " (:attempt, :node, :port, '10.1.1.1', 8000, :state) ON CONFLICT (attempt_id, node)"
                " DO UPDATE SET state = excluded.state, port = excluded.port"
            ),
            {"attempt": attempt, "node": node, "state": state, "port": port},
        )
    ctx.notify(tunnels.CHANGED)


def test_the_registry_names_only_addresses_that_lead_somewhere(ctx: Context, attempt: int) -> None:
    registry = Registry(ctx)
    end(ctx, attempt, "another", "up", 20009)
    with pytest.raises(NoMatch):
        registry.route(QUERY)
    assert registry.page(10, None)[0] == []
    end(ctx, attempt, ctx.settings.node_name, "up", 20001)

    def found() -> str:
        return next((one["endpoint"] for one in registry.page(10, None)[0]), "")

    wait_until(lambda: found() == "127.0.0.1:20001", 10, "its local end being known")
    assert registry.route(QUERY).endpoint == "127.0.0.1:20001"
    end(ctx, attempt, ctx.settings.node_name, "up", 20002)
    wait_until(lambda: found() == "127.0.0.1:20002", 10, "its other local end being known")
    end(ctx, attempt, ctx.settings.node_name, "down", 20002)
    wait_until(lambda: found() == "", 10, "its local end being known to be down")


def test_prometheus_is_told_of_local_ends_only(ctx: Context, attempt: int) -> None:
    assert service_views.targets(ctx) == []
    end(ctx, attempt, ctx.settings.node_name, "up", 20001)
    [target] = service_views.targets(ctx)
    assert (target["host"], target["port"], target["base_url"]) == ("127.0.0.1", 20001, "http://127.0.0.1:20001")
