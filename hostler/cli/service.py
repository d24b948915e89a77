"""``hostler service``: recipes as often as they are wanted."""

from __future__ import annotations

import os
from typing import Any

import click

from hostler.cli import following, parse
from hostler.cli.history import follow_events, show_events
from hostler.cli.names import model_names, pool_names, recipe_names, service_refs
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.parse import Duration
from hostler.cli.service_following import ServiceStory, follow_service
from hostler.cli.service_output import explain, logs
from hostler.cli.show import Columns, cell, show_list, show_one, show_raw, talk
from hostler.cli.text import age, clean
from hostler.errors import BadInput

Json = dict[str, Any]

COLUMNS: Columns = {
    "ID": "id",
    "NAME": "name",
    "STATUS": "status",
    "READY": lambda row: f"{row.get('ready')}/{row.get('count')}",
    "REVISION": "revision",
    "RECIPE": "recipe_name",
    "MODEL": "model_name",
    "POOL": "pool",
    "AGE": lambda row: age(row.get("created_at")),
}
REPLICA_COLUMNS: Columns = {
    "REPLICA": "replica_id",
    "ORDINAL": "ordinal",
    "REVISION": "revision",
    "STATUS": "status",
    "REASON": "reason",
    "NODE": "node",
    "URL": "base_url",
    "MESSAGE": "message",
}
REVISION_COLUMNS: Columns = {
    "REVISION": "number",
    "CAUSE": "cause",
    "ACTOR": "actor",
    "RECIPE": lambda row: cell(row.get("recipe_name") or (row.get("recipe") or {}).get("name")),
    "CONFIG": "config",
    "AGE": lambda row: age(row.get("created_at")),
}
_WAIT = "Follow it until it is so; --no-wait (the default) returns at once."


@click.group(cls=Noun)
def service() -> None:
    """Run recipes: create, scale, update, watch and stop services."""


def _described(command: Any) -> Any:
    """The options that say what a service runs, for create and update."""
    for option in (
        click.option("-f", "--file", "path", metavar="FILE", help="The request as JSON or YAML; -: stdin."),
        click.option("--model-name", metavar="NAME", shell_complete=model_names, help="What it is asked for as."),
        click.option("--env", metavar="K[=V]", multiple=True, help="For the engine; bare K: from yours (repeatable)."),
        click.option("--set", "settings", metavar="K=V|JSON", multiple=True, help="In config; K may be dotted."),
    ):
        command = option(command)
    return command


def _waits(command: Any) -> Any:
    timeout = click.option(
        "--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long; it goes on."
    )
    return following.wait_option(_WAIT)(timeout(command))


@service.command("create")
@click.argument("recipe", required=False, shell_complete=recipe_names)
@_described
@click.option("--replicas", type=click.IntRange(min=0), metavar="N", help="How many [default: the recipe's].")
@click.option("--name", metavar="NAME", help="Name to find it by [default: one is made].")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Where to run it.")
@click.option("--label", metavar="K=V", multiple=True, help="Label to find it by (repeatable).")
@click.option("--all-or-nothing", is_flag=True, default=None, help="One replica that fails ends all.")
@click.option("--dry-run", is_flag=True, help="Show what would be made; change nothing.")
@_waits
@pass_session
def create(
    session: Session, path: str | None, dry_run: bool, wait: bool | None, timeout: float | None, **flags: Any
) -> None:
    """Run a recipe, as often as it is wanted.

    With --wait each step is shown; when it cannot come up the reason and the end of a log are (exit 6). Ctrl-C leaves
    it going on.
    """
    body = parse.merge(parse.read_body(path), _from_flags(**flags))
    if not body.get("recipe_name"):
        raise BadInput("which recipe? hostler service create RECIPE", hint="hostler recipe list")
    if dry_run or body.get("dry_run"):
        _show_plan(session, session.client.create_service({**body, "dry_run": True}))
        return
    _carry_on(session, session.client.create_service(body), wait, timeout)


@service.command("list")
@click.option(
    "--status", metavar="STATUS", help="Only pending, configuring, running, completed, failed or cancelled ones."
)
@click.option("--name", metavar="NAME", help="Only those of this name, ended ones too.")
@click.option("--recipe", metavar="RECIPE", shell_complete=recipe_names, help="Only those of this recipe.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Only those of this pool.")
@click.option("-l", "--label", metavar="LABEL=V", multiple=True, help="Only those with this label (repeatable).")
@click.option("--owner", metavar="KEY_ID", help="Only those that this key made.")
@paged
@pass_session
def list_services(session: Session, page: Json, **filters: Any) -> None:
    """List services, the newest first."""
    filters = {name: value or None for name, value in filters.items()}
    body = read_pages(session.client.list_services, "services", page, **filters)
    show_list(session, body, "services", COLUMNS, name="id")


@service.command("get")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def get(session: Session, ref: str) -> None:
    """Show one service: what it should run, and every replica."""
    show_one(session, session.client.get_service(ref), name="id")


@service.command("status")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def status(session: Session, ref: str) -> None:
    """Show how a service's replicas stand, together and each."""
    body = session.client.service_status(ref)
    if session.output == "table":
        told = (
            f"{clean(body.get('overall_status'))}, {body.get('healthy_replicas')} of {body.get('total_replicas')} ready"
        )
        click.echo(told + (f": {clean(body['message'])}" if body.get("message") else ""))
    show_list(session, body, "replica_statuses", REPLICA_COLUMNS, name="replica_id")


@service.command("wait")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@click.option(
    "--for",
    "wanted",
    type=click.Choice(["running", "stopped"]),
    default="running",
    show_default=True,
    help="What to wait for.",
)
@click.option("--timeout", type=Duration(), help="Give up (exit 7) after so long.")
@pass_session
def wait_for(session: Session, ref: str, wanted: str, timeout: float | None) -> None:
    """Wait until all replicas of a service are ready, or all are gone.

    Fails at once (exit 6) when that cannot happen any more.
    """
    body = session.client.wait_service(ref, wanted=wanted, timeout_s=timeout)
    _show(session, body, f"{body.get('id')} {wanted}")


@service.command("stop")
@click.argument("refs", nargs=-1, required=True, shell_complete=service_refs, metavar="SERVICE...")
@following.wait_option("Return when every replica was seen gone.")
@click.option("--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long.")
@pass_session
def stop(session: Session, refs: tuple[str, ...], wait: bool | None, timeout: float | None) -> None:
    """Stop services: all their replicas. Records and logs stay."""
    asked = {ref: session.client.cancel_service(ref) for ref in refs}
    for ref, body in asked.items():
        service_id = str(body.get("service_id") or ref)
        if wait:
            # by its id: the name may be another service's by then
            session.client.wait_service(service_id, wanted="stopped", timeout_s=timeout)
        _show(session, body, service_id)
    if not wait:
        talk("asked to stop; until all is gone: hostler service wait ID --for stopped")


@service.command("scale")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@click.argument("replicas", type=click.IntRange(min=0))
@_waits
@pass_session
def scale(session: Session, ref: str, replicas: int, wait: bool | None, timeout: float | None) -> None:
    """Have more replicas, or fewer: the unhealthy and the least busy go first, drained."""
    _change(session, ref, wait, timeout, lambda: session.client.scale_service(ref, replicas))


@service.command("update")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@_described
@click.option(
    "--max-surge", type=click.IntRange(min=0), metavar="N", help="Replicas beyond the count meanwhile [default: 1]."
)
@click.option(
    "--max-unavailable", type=click.IntRange(min=0), metavar="N", help="Of the count, not ready [default: 0]."
)
@click.option(
    "--rollback/--no-rollback", default=None, help="Go back by itself when the new revision fails [default: yes]."
)
@click.option("--dry-run", is_flag=True, help="Show what would change; change nothing.")
@_waits
@pass_session
def update(
    session: Session, ref: str, path: str | None, dry_run: bool, wait: bool | None, timeout: float | None, **flags: Any
) -> None:
    """Change what a service runs: a new revision takes over, replica by replica, without an interruption."""
    changes = parse.merge(parse.read_body(path), _from_flags(**flags))
    if not changes:
        raise BadInput("nothing to change was given", hint="hostler service update --help")
    if dry_run or changes.get("dry_run"):
        _show_plan(session, session.client.update_service(ref, {**changes, "dry_run": True}))
        return
    _change(session, ref, wait, timeout, lambda: session.client.update_service(ref, changes))


@service.command("rollback")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="Which [default: the last good one before].")
@_waits
@pass_session
def rollback(session: Session, ref: str, revision: int | None, wait: bool | None, timeout: float | None) -> None:
    """Go back to an earlier revision."""
    _change(session, ref, wait, timeout, lambda: session.client.rollback_service(ref, revision=revision))


@service.command("pause")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def pause(session: Session, ref: str) -> None:
    """Take no further step of an update; what fails is still replaced."""
    body = session.client.pause_service(ref)
    _show(session, body, f"{body.get('id')} paused")


@service.command("resume")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def resume(session: Session, ref: str) -> None:
    """Go on with a paused update."""
    body = session.client.resume_service(ref)
    _show(session, body, f"{body.get('id')} goes on")


@service.command("revisions")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def revisions(session: Session, ref: str) -> None:
    """Show what a service was asked to run, the newest first."""
    show_list(session, session.client.service_revisions(ref), "revisions", REVISION_COLUMNS, name="number")


@service.command("events")
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@paged
@pass_session
def events(session: Session, ref: str, follow: bool, page: Json) -> None:
    """Show what was decided about a service, with cause and actor."""
    if follow:
        from hostler.service_verbs import service_events_feed

        follow_events(session, service_events_feed(ref, after=page.get("cursor")))
        return

    def fetch(**filters: Any) -> Json:
        return session.client.service_events(ref, **filters)

    show_events(session, read_pages(fetch, "events", page))


def _change(session: Session, ref: str, wait: bool | None, timeout_s: float | None, ask: Any) -> None:
    # by its id: the name may be another service's by then
    story = ServiceStory(session, str(session.client.get_service(ref)["id"])).skip() if wait else None
    _carry_on(session, ask(), wait, timeout_s, story)


def _carry_on(
    session: Session, answer: Json, wait: bool | None, timeout_s: float | None, story: ServiceStory | None = None
) -> None:
    service_id, task_id = str(answer["id"]), answer.get("task_id")
    for warning in answer.get("warnings") or []:
        talk(f"warning: {warning}")
    if wait and task_id:
        answer = follow_service(session, service_id, str(task_id), timeout_s=timeout_s, story=story)
    if wait:
        _show(session, answer, f"{service_id} {answer.get('status')} {answer.get('ready')}/{answer.get('count')} ready")
        return
    _show(session, answer, service_id)
    talk(f"asked for; follow it: hostler service wait {clean(answer.get('name') or service_id)}")


def _show(session: Session, body: Json, line: str) -> None:
    if session.output in ("json", "yaml"):
        show_raw(session, body)
    elif session.output == "name":
        click.echo(clean(body.get("id") or body.get("service_id") or ""))
    else:
        click.echo(clean(line))


def _show_plan(session: Session, plan: Json) -> None:
    show_one(session, plan, name="name")
    talk("nothing was changed")


def _from_flags(
    settings: tuple[str, ...],
    env: tuple[str, ...],
    recipe: str | None = None,
    label: tuple[str, ...] = (),
    max_surge: int | None = None,
    max_unavailable: int | None = None,
    rollback: bool | None = None,
    **plain: Any,
) -> Json:
    """The part of the request that the flags say; what was not given is left out."""
    config = parse.settings(settings, "--set")
    environment = parse.environment(env, "--env", os.environ)
    limits = {"max_surge": max_surge, "max_unavailable": max_unavailable, "auto_rollback": rollback}
    body: Json = {
        **plain,
        "recipe_name": recipe,
        "config": parse.merge(config, {"environment": environment}) if environment else config,
        "labels": parse.pairs(label, "--label"),
        "update": {name: value for name, value in limits.items() if value is not None},
    }
    return {name: value for name, value in body.items() if value is not None and value != {}}


for command in (logs, explain):
    service.add_command(command)
