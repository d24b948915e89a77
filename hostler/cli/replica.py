"""``hostler replica``: one inference server each, from the wish to the last trace of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from hostler.cli import following
from hostler.cli.failure import raise_first
from hostler.cli.launch import create, restart
from hostler.cli.names import model_names, pool_names, replica_ids
from hostler.cli.options import Noun, Session, pass_session
from hostler.cli.output import events, explain, logs
from hostler.cli.paging import paged, read_pages
from hostler.cli.parse import Duration, number
from hostler.cli.show import Columns, show_gone, show_list, show_one, show_raw, talk
from hostler.cli.text import age
from hostler.errors import BadInput, HostlerError, ReplicaFailed
from hostler.waiting import TERMINAL, WANTED

if TYPE_CHECKING:
    from hostler.client import Client

Json = dict[str, Any]

COLUMNS: Columns = {
    "ID": "replica_id",
    "STATUS": "status",
    "REASON": "reason",
    "MODEL": "model_name",
    "MODE": "server_mode",
    "POOL": "pool",
    "URL": "base_url",
    "AGE": lambda row: age(row.get("created_at")),
}


@click.group(cls=Noun)
def replica() -> None:
    """Create, list, stop, check and read about replicas."""


@replica.command("list")
@click.option("--status", metavar="STATE", help="Only those in this state.")
@click.option("--mode", "server_mode", metavar="MODE", help="Only those of this server mode.")
@click.option("--model-name", metavar="NAME", shell_complete=model_names, help="Only those that serve this model.")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Only those of this pool.")
@click.option("-l", "--label", metavar="LABEL=V", multiple=True, help="Only those with this label (repeatable).")
@click.option("--owner", metavar="KEY_ID", help="Only those that this key made.")
@paged
@pass_session
def list_replicas(session: Session, page: Json, **filters: Any) -> None:
    """List replicas, the newest first."""
    filters = {name: value or None for name, value in filters.items()}
    body = read_pages(session.client.list_replicas, "replicas", page, **filters)
    show_list(session, body, "replicas", COLUMNS, name="replica_id")


@replica.command("get")
@click.argument("replica_id", shell_complete=replica_ids)
@pass_session
def get(session: Session, replica_id: str) -> None:
    """Show one replica: its spec, state, reason, address, times and diagnostics."""
    show_one(session, session.client.get_replica(replica_id), name="replica_id")


@replica.command("stop")
@click.argument("replica_ids", nargs=-1, shell_complete=replica_ids, metavar="[ID]...")
@click.option("-l", "--label", metavar="LABEL=V", multiple=True, help="Every live one with this label (repeatable).")
@click.option("--grace", type=Duration(), help="Time between SIGTERM and SIGKILL [default: 30s].")
@click.option(
    "--drain",
    type=Duration(),
    help="Time for requests in flight before that [default: what its create or setting says].",
)
@click.option("--force", is_flag=True, help="Kill it at once.")
@click.option(
    "--abandon",
    is_flag=True,
    help="Role admin: ask nobody and free what it holds, though it was not seen gone. For what cannot be asked.",
)
@following.wait_option("Return when it was seen gone.")
@click.option("--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long.")
@pass_session
def stop(
    session: Session,
    replica_ids: tuple[str, ...],
    label: tuple[str, ...],
    grace: float | None,
    drain: float | None,
    force: bool,
    abandon: bool,
    wait: bool | None,
    timeout: float | None,
) -> None:
    """Stop replicas, by id or by label. Works in every state; a queued launch is cancelled."""
    client = session.client
    grace_s = None if grace is None else number(grace)
    stop_one = partial(client.stop_replica, force=force, grace_s=grace_s, drain_s=drain, abandon=abandon)
    asked, refused = _each(_chosen(client, replica_ids, label), stop_one)
    if wait:
        # all were asked before the first is waited for
        asked, late = _each(asked, partial(client.wait_replica, wanted="released", timeout_s=timeout))
        refused += late
    for replica_id, body in asked.items():
        if session.output in ("json", "yaml"):
            show_raw(session, body)
        else:
            click.echo(replica_id)
    raise_first(refused)
    if asked and abandon:
        if any(one.get("left_behind_at") for body in asked.values() for one in body.get("attempts") or ()):
            talk("given up: something of it may still run; hostler replica get ID says where")
        else:
            talk("there was nothing to give up: it had been seen gone")
    elif asked and not wait:
        talk("asked to stop; until it is gone: hostler replica wait ID --for released")


@replica.command("health")
@click.argument("replica_id", shell_complete=replica_ids)
@click.option("--timeout", type=Duration(), default=120.0, show_default="120s", help="Longest wait for the verdict.")
@pass_session
def health(session: Session, replica_id: str, timeout: float) -> None:
    """Probe a replica now. Exit code 6 when it is not healthy."""
    body = session.client.check_replica(replica_id, timeout_s=number(timeout))
    if "healthy" not in body and body.get("task_id"):
        task = session.client.wait_task(str(body["task_id"]), timeout_s=timeout)
        body = task.get("result") or {"replica_id": replica_id, "healthy": False, "message": task.get("message")}
    show_one(session, body, name="replica_id")
    if not body.get("healthy"):
        raise ReplicaFailed(
            f"replica {replica_id} is not healthy: {body.get('message') or 'no reason was given'}",
            replica_id=replica_id,
            hint=f"hostler replica explain {replica_id}",
        )


@replica.command("diagnose")
@click.argument("replica_id", shell_complete=replica_ids)
@click.option("--timeout", type=Duration(), default=300.0, show_default="300s", help="Give up (exit 7) after so long.")
@pass_session
def diagnose(session: Session, replica_id: str, timeout: float) -> None:
    """Run the diagnostics again and show them. Exit code 6 when they fail."""
    client = session.client
    story = following.Story(session, replica_id).skip()
    task_id = str(client.diagnose_replica(replica_id)["task_id"])
    task = following.follow_task(session, replica_id, task_id, timeout_s=timeout, story=story)
    body = task.get("result") or client.get_replica(replica_id).get("diagnostics") or {}
    show_one(session, body, name="replica_id")
    if task.get("state") != "succeeded":
        raise ReplicaFailed(
            f"the diagnostics of replica {replica_id} {task.get('state')}: {task.get('message') or task.get('reason')}",
            replica_id=replica_id,
            hint=f"hostler replica logs {replica_id}",
        )


@replica.command("wait")
@click.argument("replica_id", shell_complete=replica_ids)
@click.option(
    "--for", "wanted", type=click.Choice(WANTED), default="ready", show_default=True, help="What to wait for."
)
@click.option("--timeout", type=Duration(), help="Give up (exit 7) after so long.")
@pass_session
def wait(session: Session, replica_id: str, wanted: str, timeout: float | None) -> None:
    """Wait until a replica is ready, stopped, released or deleted.

    Fails at once (exit 6, with reason and the end of the log) when that cannot happen any more.
    """
    body = session.client.wait_replica(replica_id, wanted=wanted, timeout_s=timeout)
    if session.output in ("json", "yaml"):
        show_raw(session, body)
    elif session.output == "name":
        click.echo(replica_id)
    else:
        click.echo(
            f"{replica_id} {wanted}" + (f" {body['base_url']}" if wanted == "ready" and body.get("base_url") else "")
        )


@replica.command("delete")
@click.argument("replica_ids", nargs=-1, required=True, shell_complete=replica_ids, metavar="ID...")
@pass_session
def delete(session: Session, replica_ids: tuple[str, ...]) -> None:
    """Remove the records of replicas that have ended and were seen gone."""
    done, refused = _each(replica_ids, session.client.delete_replica)
    for replica_id in done:
        show_gone(session, replica_id)
    raise_first(refused)


def _each(ids: Iterable[str], act: Callable[[str], Json]) -> tuple[dict[str, Json], list[HostlerError]]:
    """Do it to every one, also when one refuses: (answers by id, refusals)."""
    done: dict[str, Json] = {}
    refused: list[HostlerError] = []
    for replica_id in ids:
        try:
            done[replica_id] = act(replica_id)
        except HostlerError as error:
            refused.append(error)
    return done, refused


def _chosen(client: Client, ids: tuple[str, ...], labels: tuple[str, ...]) -> list[str]:
    if "" in ids:
        raise BadInput("the id of a replica is empty", hint="hostler replica list")
    if bool(ids) == bool(labels):
        raise BadInput("name replicas by id, or by -l LABEL=V, not both", hint="hostler replica list")
    if ids:
        return list(ids)
    found = read_pages(client.list_replicas, "replicas", {"all": True}, label=list(labels))["replicas"]
    live = [str(row["replica_id"]) for row in found if row.get("status") not in TERMINAL]
    if not live:
        talk(f"no live replica has {' and '.join(labels)}")
    return live


for command in (create, restart, logs, events, explain):
    replica.add_command(command)
