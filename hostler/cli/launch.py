"""``hostler replica create`` and ``restart``: launches, and following them."""

from __future__ import annotations

import os
from typing import Any

import click

from hostler.cli import following, parse
from hostler.cli.names import model_names, pool_names, recipe_names, replica_ids
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.parse import Duration
from hostler.cli.show import show_one, show_raw, talk
from hostler.cli.text import clean_block
from hostler.errors import BadInput

Json = dict[str, Any]
DEFAULT_MODE = "replica"


@click.command("create", cls=Verb)
@click.option("--server-mode", metavar="MODE", help=f"replica, replica_mock, ... [default: {DEFAULT_MODE}]")
@click.option("--model-name", metavar="NAME", shell_complete=model_names, help="The model to serve.")
@click.option("--recipe", metavar="NAME", shell_complete=recipe_names, help="The recipe that says the rest.")
@click.option("--set", "sets", metavar="K=V|JSON", multiple=True, help="Laid over the recipe (repeatable).")
@click.option("--pool", metavar="POOL", shell_complete=pool_names, help="Where to run it.")
@click.option(
    "--env", metavar="K[=V]", multiple=True, help="Environment of the engine; bare K: from yours (repeatable)."
)
@click.option("--label", metavar="K=V", multiple=True, help="Label to find it by (repeatable).")
@click.option("--config", metavar="K=V|JSON", multiple=True, help="In replica_config; K may be dotted (repeatable).")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="How many GPUs it needs.")
@click.option("--priority", type=click.Choice(["p0", "p1", "p2", "p3"]), help="p0 first.")
@click.option("--queue-timeout", type=Duration(), help="Fail when no place was found in its pool so long.")
@click.option("--readiness-timeout", type=Duration(), help="Fail when it is not ready so long after its start.")
@click.option("--lifetime", type=Duration(), help="Stop it after so long.")
@click.option("--diagnostics/--no-diagnostics", default=None, help="Try it out before it counts as ready.")
@click.option("-f", "--file", "path", metavar="FILE", help="The request as JSON or YAML; - is stdin. Flags go over it.")
@click.option("--dry-run", is_flag=True, help="Show what would be run; change nothing.")
@following.wait_option("Follow it until it is ready; --no-wait (the default) returns at once.")
@click.option("--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long; the launch goes on.")
@pass_session
def create(
    session: Session, path: str | None, dry_run: bool, wait: bool | None, timeout: float | None, **flags: Any
) -> None:
    """Bring a replica into service.

    With --wait each step is shown; a failed launch ends it at once with the reason and the end of the log (exit 6).
    Ctrl-C leaves the launch running.
    """
    body = parse.merge(parse.read_body(path), _from_flags(**flags))
    if not body.get("recipe"):
        body.setdefault("server_mode", DEFAULT_MODE)
    if not body.get("model_name") and not body.get("recipe"):
        raise BadInput("which model? give --model-name NAME", hint="hostler model list")
    # a file may carry the API's own wish to wait; here the command waits, not the request
    wait = bool(body.get("wait_for_ready", False)) if wait is None else wait
    body["wait_for_ready"] = False
    if dry_run or body.get("dry_run"):
        body["dry_run"] = True
        _show_plan(session, session.client.create_replica(body, wait_s=0))
        return
    _carry_on(session, session.client.create_replica(body, wait_s=0), wait, timeout)


@click.command("restart", cls=Verb)
@click.argument("replica_id", shell_complete=replica_ids)
@following.wait_option("Follow it until it is ready again; --no-wait (the default) returns at once.")
@click.option("--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long.")
@pass_session
def restart(session: Session, replica_id: str, wait: bool | None, timeout: float | None) -> None:
    """End the present attempt of a replica and start the next, of the same spec."""
    story = following.Story(session, replica_id).skip() if wait else None
    answer = session.client.restart_replica(replica_id)
    _carry_on(session, {"replica_id": replica_id, **answer}, bool(wait), timeout, story)


def _carry_on(
    session: Session, answer: Json, wait: bool, timeout_s: float | None, story: following.Story | None = None
) -> None:
    replica_id = str(answer["replica_id"])
    for warning in answer.get("warnings") or []:
        talk(f"warning: {warning}")
    if wait:
        task_id = str(answer["task_id"])
        answer = following.follow_launch(session, replica_id, task_id, timeout_s=timeout_s, story=story)
    if session.output in ("json", "yaml"):
        show_raw(session, answer)
    elif wait and session.output == "table":
        click.echo(f"{replica_id} ready {answer.get('base_url') or ''}".rstrip())
    else:
        click.echo(replica_id)
    if not wait:
        following.say_started(replica_id)


def _show_plan(session: Session, plan: Json) -> None:
    script = plan.get("script") if session.output == "table" else None
    show_one(session, {**plan, "script": None} if script else plan, name="replica_id")
    if script:
        click.echo(f"script\n\n{clean_block(str(script))}")
    talk("nothing was changed")


def _from_flags(
    env: tuple[str, ...],
    label: tuple[str, ...],
    config: tuple[str, ...],
    gpus: int | None,
    priority: str | None,
    queue_timeout: float | None,
    readiness_timeout: float | None,
    lifetime: float | None,
    diagnostics: bool | None,
    sets: tuple[str, ...],
    **plain: str | None,
) -> Json:
    """The part of the request that the flags say; what was not given is left out."""
    timeouts = {"queue_timeout_s": queue_timeout, "readiness_timeout_s": readiness_timeout}
    job: Json = {"job_priority": priority, "job_timeout_s": lifetime}
    body: Json = {
        **plain,
        "environment": parse.environment(env, "--env", os.environ),
        "labels": parse.pairs(label, "--label"),
        "resources": {} if gpus is None else {"gpus": gpus},
        "replica_config": parse.settings(config, "--config"),
        "timeouts": {name: parse.number(value) for name, value in timeouts.items() if value is not None},
        "job": {
            name: parse.number(value) if isinstance(value, float) else value
            for name, value in job.items()
            if value is not None
        },
        "run_diagnostics": diagnostics,
        "config": parse.settings(sets, "--set"),
    }
    return {name: value for name, value in body.items() if value is not None and value != {}}
