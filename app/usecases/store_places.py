"""On which host the data of a store are: what opens an empty folder instead would look like a store that forgot."""

from __future__ import annotations

from sqlalchemy import text

from app.domain.routing import SERVICE_LABEL
from app.stack.layout import Layout
from app.usecases.context import Context

# the replicas of a service, or the one that is in none; whose attempt was ready has written something
_LAST_READY = text(
    """
SELECT a.node FROM attempts AS a
WHERE a.replica_id IN (
        SELECT replica_id FROM replica_labels WHERE name = :label AND value = :keeper UNION ALL SELECT :keeper
    )
    AND a.node IS NOT NULL
    AND EXISTS (
        SELECT 1 FROM events AS e WHERE e.replica_id = a.replica_id AND e.attempt = a.number AND e.to_state = 'ready'
    )
ORDER BY a.id DESC LIMIT 1
"""
)


def elsewhere(ctx: Context, keeper: str) -> str:
    """The host on which the store of ``keeper`` was ready last, if its data are not on this one; else empty."""
    if (Layout(ctx.settings.state_dir).data / keeper).is_dir():
        return ""
    with ctx.database.read() as connection:
        node = connection.execute(_LAST_READY, {"label": SERVICE_LABEL, "keeper": keeper}).scalar()
    return str(node) if node is not None and node != ctx.settings.node_name else ""
