"""What a host says it has is what can be leased of it."""

from __future__ import annotations

from sqlalchemy import text

from app.settings import Settings
from app.usecases import presence
from app.usecases.context import Context
from app.usecases.presence import NodeFacts


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
