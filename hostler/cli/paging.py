"""Lists: one page, or all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])
#: What one request of ``--all`` asks for.
BIG_PAGE = 200


def paged(command: F) -> F:
    """Add --limit, --cursor and --all, which arrive as one argument ``page``."""

    def gather(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        ctx.params.setdefault("page", {})[param.name] = value

    for name, attributes in (
        ("--all", {"is_flag": True, "help": "Every page, not just the first."}),
        ("--cursor", {"metavar": "CURSOR", "help": "Go on after this cursor (next_cursor of the page before)."}),
        ("--limit", {"type": click.IntRange(min=1), "metavar": "N", "help": "Rows per page."}),
    ):
        command = click.option(name, expose_value=False, callback=gather, **attributes)(command)
    return command


def read_pages(fetch: Callable[..., Json], key: str, page: Json, **filters: Any) -> Json:
    """The asked page; with ``all``, the first page's body with the rows of all pages under ``key``."""
    if not page.get("all"):
        return fetch(limit=page.get("limit"), cursor=page.get("cursor"), **filters)
    limit = page.get("limit") or BIG_PAGE
    body = fetch(limit=limit, cursor=page.get("cursor"), **filters)
    following = body.get("next_cursor")
    while following:
        more = fetch(limit=limit, cursor=following, **filters)
        body[key] = [*body.get(key, []), *more.get(key, [])]
        following = more.get("next_cursor")
    if "next_cursor" in body:
        body["next_cursor"] = None
    return body
