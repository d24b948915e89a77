"""What a cluster calls its job, as another name of what runs in it. Clusters count their jobs anew after they lost
their state, and two of them count the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.errors import Conflict

#: Rows that ``meant`` is given at most: one more than are told.
MOST = 11


def meant(job_id: str, kind: str, found: Sequence[Any]) -> str | None:
    """The id that ``job_id`` means among ``found``, rows (id, runs): the one for which it runs, else the only one.

    None when there are none. Raises Conflict that lists the ids when several are meant.
    """
    several = [row for row in found if row.runs] or list(found)
    if len(several) <= 1:
        return several[0].id if several else None
    ids = [row.id for row in several][: MOST - 1]
    more = " and others" if len(several) == MOST else ""
    has = "has" if several[0].runs else "had"
    raise Conflict(
        f"More than one of the {kind} {has} a job {job_id}: {', '.join(ids)}{more}. Say which by its id.",
        extra={"ids": ids},
    )
