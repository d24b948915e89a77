"""A member that was replaced is read no more, unless somebody restarts it: also at the moment when it is marked."""

from __future__ import annotations

import secrets

from sqlalchemy import text

from app.db.repos import service_members
from app.usecases.context import Actor, Context
from app.usecases.restarts import _restart
from tests.support.services import Hands, create


def test_a_mark_never_hides_what_is_restarted_at_that_moment(ctx: Context, actor: Actor, hands: Hands) -> None:
    service = create(ctx, actor, 1).service_id
    (member,) = [row.id for row in hands.replicas(service)]
    hands.fail(member)
    with ctx.database.begin() as restarting:
        _restart(restarting, actor, member, secrets.token_hex(8))
        # whoever reconciles read it before, as one that was replaced and is gone
        ctx.database.change(lambda connection: service_members.mark_past(connection, [member]))
    with ctx.database.read() as connection:
        query = text("SELECT past FROM service_members WHERE replica_id = :id")
        assert connection.execute(query, {"id": member}).scalar_one() is False
