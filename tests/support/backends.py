"""What the database knows of backends, as workers publish it, and pools of theirs that no admin was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import text

from app.usecases import presence
from app.usecases.context import Context
from app.usecases.presence import BackendFacts
from workers.backends.base import Backend


def publish(ctx: Context, *backends: type[Backend]) -> None:
    presence.register_backends(
        ctx,
        [
            BackendFacts(one.name, one.summary, one.options_schema, one.host_bound, one.serves_http, one.lacks)
            for one in backends
        ],
    )


def write_pool(
    ctx: Context, name: str, backend: str, options: Mapping[str, Any], slots: int = 4, state: str = "active"
) -> None:
    """A pool of these options, checked by nobody, and without units that could be leased."""
    statement = (
        "INSERT INTO pools (name, backend, slots, options, state)"
        " VALUES (:name, :backend, :slots, CAST(:options AS jsonb), :state)"
    )
    values = {"name": name, "backend": backend, "slots": slots, "options": json.dumps(dict(options)), "state": state}
    with ctx.database.begin() as connection:
        connection.execute(text(statement), values)
