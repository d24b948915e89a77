"""``hostler service logs`` and ``explain``: what a service's replicas wrote, and what it waits for."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.names import service_refs
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.output import write
from hostler.cli.show import cell, show_raw, talk
from hostler.cli.text import clean

Json = dict[str, Any]


@click.command("logs", cls=Verb)
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written, until the service has ended.")
@click.option("--replica", metavar="ID|N", help="Only this replica, by id or by ordinal.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each.")
@click.option("--raw", is_flag=True, help="Leave terminal control characters in.")
@pass_session
def logs(session: Session, ref: str, follow: bool, replica: str | None, tail: int | None, raw: bool) -> None:
    """Show what a service's replicas wrote, those that ended too; each line begins with its replica."""
    if follow:
        _follow(session, ref, replica, tail, raw)
        return
    text = session.client.service_logs(ref, replica=replica, tail=tail)
    if not text:
        talk("nothing was written yet")
    write(text if text.endswith("\n") or not text else f"{text}\n", raw)


@click.command("explain", cls=Verb)
@click.argument("ref", shell_complete=service_refs, metavar="SERVICE")
@pass_session
def explain(session: Session, ref: str) -> None:
    """Say why a service is as it is, what it waits for and until when, and what to type."""
    body = session.client.get_service(ref)
    if session.output in ("json", "yaml"):
        show_raw(session, body)
        return
    if session.output == "name":
        click.echo(clean(body.get("id")))
        return
    for line in explained(body):
        click.echo(line)


def explained(service: Json) -> list[str]:
    """The service as lines for a person."""
    name = clean(service.get("name") or service.get("id"))
    lines = [f"{name} is {clean(service.get('status'))}: {service.get('ready')} of {service.get('count')} ready"]
    why = [clean(service[key]) for key in ("reason", "message") if service.get(key)]
    if why:
        lines.append(f"  because   {': '.join(why)}")
    lines += [f"  {clean(key).ljust(8)}  {cell(value)}" for key, value in _plan(service).items()]
    for replica in service.get("replicas") or []:
        if replica.get("status") not in ("ready", "running"):
            words = [replica.get("status"), replica.get("reason") and f"({replica['reason']})", replica.get("message")]
            lines.append(
                f"  replica   {clean(replica.get('replica_id'))} {clean(' '.join(str(w) for w in words if w))}"
            )
            lines.append(f"  type      hostler replica explain {clean(replica.get('replica_id'))}")
    return lines


def _plan(service: Json) -> Json:
    plan = service.get("plan")
    return (
        {key: value for key, value in plan.items() if value not in (None, "", [], {})} if isinstance(plan, dict) else {}
    )


def _follow(session: Session, ref: str, replica: str | None, tail: int | None, raw: bool) -> None:
    from hostler.service_verbs import service_logs_feed

    feed, told = service_logs_feed(ref, replica=replica, tail=tail), 0
    for item in session.client.follow(feed):
        if feed.gaps > told:
            told = feed.gaps
            talk(f"the connection broke; lines may be missing here: hostler service logs {ref}")
        write(f"{item.data}\n", raw)
