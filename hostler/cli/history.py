"""Events as lines, and a replica's time per state."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.options import Session
from hostler.cli.show import Columns, show_list
from hostler.cli.text import clean, escape_json, parse_time

if TYPE_CHECKING:
    from hostler.feed import Feed

Json = dict[str, Any]


def step(event: Json) -> str:
    """``starting -> ready``, or the event's kind when it is no transition."""
    if not event.get("to_state"):
        return str(event.get("kind") or "")
    source = event.get("from_state")
    return f"{source} -> {event['to_state']}" if source else str(event["to_state"])


COLUMNS: Columns = {
    "AT": lambda event: clock(event.get("at")),
    "REPLICA": "replica_id",
    "WHAT": step,
    "REASON": "reason",
    "MESSAGE": "message",
    "CAUSE": "cause",
    "ACTOR": "actor",
}


def clock(text: object) -> str:
    """A time in the reader's own zone, to the millisecond."""
    moment = parse_time(text)
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def show_events(session: Session, body: Json) -> None:
    """A page of events, in the order they came."""
    show_list(session, body, "events", COLUMNS, name="id")


def follow_events(session: Session, feed: Feed) -> None:
    """Print events as they happen, one line each (JSON: one object per line), until the stream ends or Ctrl-C."""
    for item in session.client.follow(feed):
        event = item.json()
        if not event:
            continue
        if session.output == "json":
            click.echo(escape_json(item.data))
        elif session.output == "yaml":
            import yaml

            click.echo("---\n" + yaml.safe_dump(event, sort_keys=False), nl=False)
        elif session.output == "name":
            click.echo(clean(event.get("id", "")))
        else:
            click.echo(event_line(event))


def event_line(event: Json) -> str:
    """One event on one line."""
    parts = [clock(event.get("at")), event.get("replica_id"), step(event)]
    if event.get("reason"):
        parts.append(f"({event['reason']})")
    parts.append(event.get("message"))
    if event.get("actor"):
        parts.append(f"[{event.get('cause') or '?'} by {event['actor']}]")
    return "  ".join(clean(part) for part in parts if part)


def time_per_state(events: Iterable[Json]) -> list[tuple[str, float | None]]:
    """Each state that was entered, in order, with the seconds spent in it; None for the present one."""
    entered = [(str(event["to_state"]), parse_time(event.get("at"))) for event in events if event.get("to_state")]
    spans: list[tuple[str, float | None]] = []
    for (state, start), (_, end) in zip(entered, entered[1:], strict=False):
        spans.append((state, (end - start).total_seconds() if start and end else None))
    if entered:
        spans.append((entered[-1][0], None))
    return spans
