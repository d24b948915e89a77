"""Shell completion of names that only the server knows. Silent and quick: it must never disturb a typing person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from click.shell_completion import CompletionItem

from hostler.cli.options import Session
from hostler.cli.text import clean
from hostler.errors import HostlerError

if TYPE_CHECKING:
    import click

    from hostler.client import Client

LONGEST_S = 1.0
Completer = "Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]"


def replica_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Replica ids with model and status beside them."""
    return _complete(
        ctx,
        incomplete,
        lambda client: _rows(client.list_replicas(limit=100), "replicas", "replica_id", "model_name", "status"),
    )


def task_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(
        ctx, incomplete, lambda client: _rows(client.list_tasks(limit=100), "tasks", "id", "kind", "state")
    )


def service_refs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of running services; ids, once some of one are typed."""
    name = "id" if incomplete and set(incomplete) <= set("0123456789abcdef") else "name"
    return _complete(
        ctx,
        incomplete,
        lambda client: _rows(client.list_services(limit=100), "services", name, "recipe_name", "status"),
    )


def pool_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_pools(), "pools", "name", "backend", "state"))


def model_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_models(), "models", "name", "engine"))


def recipe_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_recipes(), "recipes", "recipe", "engine"))


def node_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_nodes(), "nodes", "name"))


def gateway_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_gateways(), "gateways", "id", "node", "state"))


def key_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(ctx, incomplete, lambda client: _rows(client.list_keys(), "keys", "id", "name", "role"))


def registration_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    return _complete(
        ctx,
        incomplete,
        lambda client: _rows(client.list_registrations(limit=100), "registrations", "replica_id", "endpoint", "health"),
    )


def _complete(
    ctx: click.Context, incomplete: str, found: Callable[[Client], Iterator[CompletionItem[str]]]
) -> list[CompletionItem[str]]:
    session = ctx.find_root().ensure_object(Session)
    session.timeout_s = LONGEST_S
    try:
        return [item for item in found(session.client) if item.value.startswith(incomplete)]
    except HostlerError:
        return []


def _rows(body: dict[str, Any], key: str, name: str, *notes: str) -> Iterator[CompletionItem[str]]:
    for row in body.get(key) or []:
        help_text = " ".join(clean(row.get(note) or "") for note in notes)
        yield CompletionItem(clean(row.get(name, "")), help=help_text or None)
