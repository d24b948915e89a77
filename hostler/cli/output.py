"""``hostler replica logs``, ``events`` and ``explain``: what a replica wrote, what it went through, and why."""

from __future__ import annotations

import sys
from typing import Any

import click

from hostler.cli.history import follow_events, show_events
from hostler.cli.names import replica_ids
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.paging import paged, read_pages
from hostler.cli.show import cell, show_raw, talk
from hostler.cli.text import clean, clean_block

Json = dict[str, Any]


@click.command("logs", cls=Verb)
@click.argument("replica_id", shell_complete=replica_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written, until the attempt ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Which attempt [default: the last].")
@click.option("--raw", is_flag=True, help="Leave terminal control characters in.")
@pass_session
def logs(session: Session, replica_id: str, follow: bool, tail: int | None, attempt: int | None, raw: bool) -> None:
    """Show what a replica's engine wrote; kept per attempt, also after a crash."""
    if follow:
        _follow_logs(session, replica_id, attempt, tail, raw)
        return
    text = session.client.replica_logs(replica_id, attempt=attempt, tail=tail)
    if not text:
        talk("nothing was written yet")
    write(text if text.endswith("\n") or not text else f"{text}\n", raw)


@click.command("events", cls=Verb)
@click.argument("replica_id", shell_complete=replica_ids)
@click.option("-f", "--follow", is_flag=True, help="Go on as they happen.")
@paged
@pass_session
def events(session: Session, replica_id: str, follow: bool, page: Json) -> None:
    """Show what a replica went through, with cause and actor."""
    if follow:
        from hostler.verbs import replica_events_feed

        follow_events(session, replica_events_feed(replica_id, after=page.get("cursor")))
        return

    def fetch(**filters: Any) -> Json:
        return session.client.replica_events(replica_id, **filters)

    show_events(session, read_pages(fetch, "events", page))


@click.command("explain", cls=Verb)
@click.argument("replica_id", shell_complete=replica_ids)
@pass_session
def explain(session: Session, replica_id: str) -> None:
    """Say why a replica is where it is, since when, what happens next, and what to type."""
    body = session.client.explain_replica(replica_id)
    if session.output in ("json", "yaml"):
        show_raw(session, body)
        return
    if session.output == "name":
        click.echo(replica_id)
        return
    for line in explained(body):
        click.echo(line)


def _follow_logs(session: Session, replica_id: str, attempt: int | None, tail: int | None, raw: bool) -> None:
    from hostler.verbs import logs_feed

    feed, told = logs_feed(replica_id, attempt=attempt, tail=tail), 0
    for item in session.client.follow(feed):
        if feed.gaps > told:
            told = feed.gaps
            talk(f"the connection broke; lines may be missing here: hostler replica logs {replica_id}")
        write(f"{item.data}\n", raw)


def _fact(item: Any) -> str:
    """One piece of evidence; what is not known of it is left out."""
    if not isinstance(item, dict):
        return cell(item)
    known = {key: value for key, value in item.items() if value is not None and key != "what"}
    facts = ", ".join(f"{clean(key)} {cell(value)}" for key, value in known.items())
    return f"{clean(item['what'])}: {facts}" if item.get("what") else facts


def write(text: str, raw: bool) -> None:
    """Output of an engine, cleaned for a terminal unless ``raw``."""
    # not click.echo: in a pipe that takes colours out, also of what was asked for raw
    sys.stdout.write(text if raw else clean_block(text))
    sys.stdout.flush()


def explained(body: Json) -> list[str]:
    """The explanation as lines for a person."""
    lines = [f"{clean(body.get('replica_id'))} is {clean(body.get('status'))} since {clean(body.get('since'))}"]
    why = " ".join(f"{body.get('message') or ''} [{body.get('rule')}]".split())
    lines.append(f"  because   {clean(why)}")
    lines += [f"  evidence  {_fact(item)}" for item in body.get("evidence") or []]
    for title, key in (("position", "position"), ("deadline", "deadline"), ("type", "command")):
        if body.get(key) is not None:
            lines.append(f"  {title.ljust(8)}  {cell(body[key])}")
    return lines
