"""What a cluster calls its job, as another name of what runs in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.errors import Conflict


def meant(job_id: str, kind: str, found: Sequence[Any]) -> str | None:
    """The id that ``job_id`` means among ``found``, at most two rows (id, runs), those that run first.

    None when there are none. Raises Conflict when it runs for both: clusters count by themselves.
    """
    if len(found) == 2 and found[1].runs:
        raise Conflict(
            f"Job {job_id} runs in more than one cluster: for the {kind} {found[0].id} and {found[1].id} at least."
            " Say which by its id."
        )
    return found[0].id if found else None
