"""``hostler health``: whether Hostler itself is well."""

from __future__ import annotations

import click

from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.show import show_one
from hostler.errors import HostlerError


@click.command("health", cls=Verb)
@pass_session
def health(session: Session) -> None:
    """Show whether Hostler is well. Exit code 1 when it is degraded."""
    body = session.client.health()
    show_one(session, body, name="status")
    if body.get("status") != "healthy":
        raise HostlerError(f"Hostler is {body.get('status')}", hint="hostler doctor")
