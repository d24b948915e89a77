"""Defects of ours that showed while nobody asked: told where people look, and their service left alone for a while."""

from __future__ import annotations

import logging

from sqlalchemy import text

from app.db.repos import service_hints, services
from app.usecases.context import Context

log = logging.getLogger(__name__)

#: A service about which a plan failed is looked at again after this.
LEFT_ALONE_S = 30.0
#: What did not show again for so long is told no more.
TOLD_S = 3 * LEFT_ALONE_S

_TELL = text(
    """
UPDATE nodes SET attributes = attributes || jsonb_build_object('defects', coalesce((
        SELECT jsonb_object_agg(key, value) FROM jsonb_each(attributes->'defects')
        WHERE CAST(value->>'at' AS float8) > extract(epoch FROM hostler_now()) - :told_s), '{}')
    || jsonb_build_object(CAST(:what AS text), jsonb_build_object(
        'at', extract(epoch FROM hostler_now()), 'message', CAST(:message AS text))))
WHERE name = :node
"""
)


def record(ctx: Context, service_id: str, error: BaseException) -> None:
    """A plan of this service failed by a defect: it goes on later, and the others do now. Raises Unavailable."""
    log.error("service %s: its plan failed; it is left alone for %.0f s", service_id, LEFT_ALONE_S, exc_info=error)
    with ctx.database.begin() as connection:
        # what changed meanwhile leaves a hint anew
        service_hints.take_all(connection, service_id)
        services.look_again(connection, {service_id: LEFT_ALONE_S})
    tell(ctx, f"service {service_id}", error)


def tell(ctx: Context, what: str, error: BaseException) -> None:
    """On `/health`, for ``TOLD_S``. Raises Unavailable."""
    values = {
        "what": what,
        "message": f"{type(error).__name__}: {error}"[:300],
        "told_s": TOLD_S,
        "node": ctx.settings.node_name,
    }
    with ctx.database.begin() as connection:
        connection.execute(_TELL, values)
