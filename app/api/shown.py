"""Who is shown what: keys that may not operate see no options that only admins set, and no texts that name them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import g

from app.api.auth import context
from app.errors import Unavailable
from app.usecases import hidden_options, keys

#: What of a body somebody may see. None: all.
Lens = Callable[[Any], Any] | None


def lens() -> Lens:
    """Of who asks; kept by streams, which outlive their request. Who showed no key is on a route that tells nothing."""
    who = g.get("actor")
    return None if who is None or keys.may(who.role, "operate") else partial(hidden_options.hide, context())


def shown(body: Any) -> Any:
    """What of ``body`` is for who asks. Raises Unavailable."""
    through = lens()
    return body if through is None else through(body)


def shown_problem(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same for an error, which is told also while the database is away."""
    try:
        hidden: Mapping[str, Any] = shown(body)
    except Unavailable:
        return body
    return hidden
