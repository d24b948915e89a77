"""``hostler apply`` and ``export``: services as a file says they should be."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from hostler.cli import following, services_file
from hostler.cli.failure import raise_first
from hostler.cli.names import service_refs
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.paging import read_pages
from hostler.cli.parse import Duration
from hostler.cli.service_following import ServiceStory, follow_service
from hostler.cli.show import cell, show_raw, talk
from hostler.cli.text import clean
from hostler.errors import BadInput, HostlerError, NotFound

Json = dict[str, Any]

#: Of ``--dry-run``: something would change.
DIFFERS = 2
_MARKS = {"create": "+", "change": "~", "stop": "-", "nothing": "="}


@dataclass
class Step:
    """What is to be done about one service. ``changes`` are ``{field, before, after}``."""

    name: str
    action: str
    document: Json = field(default_factory=dict)
    service_id: str = ""
    changes: list[Json] = field(default_factory=list)
    count: int | None = None
    new_revision: bool = False
    warnings: list[str] = field(default_factory=list)

    @property
    def scales(self) -> bool:
        """Whether there should be another number of replicas."""
        return self.count is not None and any(one["field"] == "replicas" for one in self.changes)

    def lines(self) -> list[str]:
        """For a person."""
        about = self.document.get("recipe_name", "")
        told = [f"{_MARKS[self.action]} {clean(self.name)}" + (f" ({clean(about)})" if about else "")]
        told += [_change_line(one) for one in self.changes]
        return told + [f"    warning: {clean(one)}" for one in self.warnings]

    def body(self) -> Json:
        """For a program."""
        kept = {"name": self.name, "action": self.action, "id": self.service_id or None, "changes": self.changes}
        return {**kept, "warnings": self.warnings}


@click.command("apply", cls=Verb)
@click.option(
    "-f",
    "--file",
    "paths",
    metavar="FILE",
    multiple=True,
    help="YAML of services (repeatable); -: stdin.",
)
@click.option(
    "--dry-run", "--diff", is_flag=True, help=f"Only show the difference: exit code {DIFFERS} if there is one, else 0."
)
@click.option("--schema", is_flag=True, help="Only print the JSON Schema of the file, for editors.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--prune", is_flag=True, help="Also stop running services with all the labels that no file names.")
@click.option("-l", "--label", metavar="LABEL=V", multiple=True, help="With --prune: which (repeatable).")
@following.wait_option("Follow each until it is so; --no-wait (the default) returns at once.")
@click.option("--timeout", type=Duration(), help="With --wait: give up (exit 7) after so long for each; it goes on.")
@pass_session
def apply(
    session: Session,
    paths: tuple[str, ...],
    dry_run: bool,
    schema: bool,
    yes: bool,
    prune: bool,
    label: tuple[str, ...],
    wait: bool | None,
    timeout: float | None,
) -> None:
    """Make services what a file says they should be.

    The file holds a service per YAML document, or a list of them: name and recipe_name, and what else a create takes.
    The difference is shown first, and asked about on a terminal; what the file does not name is left alone, and
    applying it again changes nothing. A field that is left out is left as it is; one that is named stands in place of
    the present one, whole. Nothing is changed when one of the services cannot be as the file says.
    """
    if schema:
        show_raw(session, session.client.service_schema())
        return
    if not paths:
        raise BadInput("which file? hostler apply -f services.yaml", hint="hostler export > services.yaml")
    if prune != bool(label):
        raise BadInput("--prune needs -l LABEL=V to say what may be stopped, and -l means nothing without it")
    try:
        steps = plan(session, services_file.read(paths), label)
    except HostlerError as error:
        if dry_run and error.exit_code in (DIFFERS, NotFound.exit_code):
            # one would say that something differs, the other that there is no such file or service
            error.exit_code = 1
        raise
    todo = [step for step in steps if step.action != "nothing"]
    if session.output == "table" or not dry_run:
        _tell(session, steps, to_stdout=dry_run and session.output == "table")
    if dry_run:
        _show(session, steps)
        click.get_current_context().exit(DIFFERS if todo else 0)
    if todo and not yes:
        _ask(len(todo))
    failed = _carry_out(session, todo, wait, timeout)
    _show(session, steps)
    raise_first(failed)


@click.command("export", cls=Verb)
@click.argument("refs", nargs=-1, shell_complete=service_refs, metavar="[SERVICE]...")
@click.option("-l", "--label", metavar="LABEL=V", multiple=True, help="Only those with this label (repeatable).")
@pass_session
def export(session: Session, refs: tuple[str, ...], label: tuple[str, ...]) -> None:
    """Print running services as a file that apply takes: all of them, or those that are named.

    Values that are kept secret stand there as ***, which apply leaves as they are.
    """
    client = session.client
    if refs:
        found = [client.get_service(ref) for ref in refs]
    else:
        page = read_pages(client.list_services, "services", {"all": True}, label=list(label) or None)
        found = [one for one in page["services"] if one.get("desired_state") == "running"]
    documents = [document_of(one) for one in sorted(found, key=lambda one: str(one.get("name")))]
    if session.output == "json":
        show_raw(session, {"services": documents})
    elif session.output == "name":
        for one in documents:
            click.echo(clean(one["name"]))
    else:
        click.echo(services_file.written(documents), nl=False)


def document_of(service: Json) -> Json:
    """What a file says of a service that is as ``service``."""
    said = {**service, **(service.get("asked") or {}), "replicas": service.get("count")}
    named = ("name", "recipe_name", "replicas", "labels", "config", *(service.get("asked") or {}))
    return {name: said[name] for name in services_file.FIELDS if name in named and said.get(name) not in (None, {})}


def plan(session: Session, documents: Sequence[Json], labels: Sequence[str] = ()) -> list[Step]:
    """What is to be done, as the server sees it now; changes nothing. Raises what the server refuses, of all services.

    ``labels``: running services with all of them that ``documents`` do not name are to be stopped.
    """
    steps: list[Step] = []
    refused: list[HostlerError] = []
    for document in documents:
        try:
            steps.append(_step(session, document))
        except HostlerError as error:
            error.message = f"{document['name']}: {error.message}"
            refused.append(error)
    raise_first(refused)
    return steps + (_stops(session, {step.name for step in steps}, labels) if labels else [])


def _step(session: Session, document: Json) -> Step:
    client, name = session.client, document["name"]
    present = _running(session, name)
    if present is None:
        made = client.create_service({**document, "dry_run": True})
        return Step(name, "create", document, count=made.get("count"), warnings=list(made.get("warnings") or []))
    changes = {field: value for field, value in document.items() if field not in ("name", "replicas")}
    answer = client.update_service(present["id"], {**changes, "replace_config": True, "dry_run": True})
    found = list(answer.get("changes") or [])
    count = int(document["replicas"]) if document.get("replicas") is not None else None
    if count is not None and count != present.get("count"):
        found.append({"field": "replicas", "before": present.get("count"), "after": count})
    return Step(
        name,
        "change" if found else "nothing",
        document,
        str(present["id"]),
        found,
        count,
        bool(answer.get("changes")),
        list(answer.get("warnings") or []) if found else [],
    )


def _running(session: Session, name: str) -> Json | None:
    try:
        found = session.client.get_service(name)
    except NotFound:
        return None
    # an id is no name, and one that was cancelled is not there any more
    return found if found.get("name") == name and found.get("desired_state") == "running" else None


def _stops(session: Session, named: set[str], labels: Sequence[str]) -> list[Step]:
    page = read_pages(session.client.list_services, "services", {"all": True}, label=list(labels))
    running = [one for one in page["services"] if one.get("desired_state") == "running"]
    left = sorted((str(one["name"]), str(one["id"])) for one in running if one["name"] not in named)
    return [Step(name, "stop", service_id=service_id) for name, service_id in left]


def _carry_out(
    session: Session, steps: Sequence[Step], wait: bool | None, timeout_s: float | None
) -> list[HostlerError]:
    """All of them, also when one fails; what failed."""
    failed: list[HostlerError] = []
    for step in steps:
        try:
            _do(session, step, wait, timeout_s)
        except HostlerError as error:
            error.message = f"{step.name}: {error.message}"
            failed.append(error)
    return failed


def _do(session: Session, step: Step, wait: bool | None, timeout_s: float | None) -> None:
    client = session.client
    if step.action == "stop":
        client.cancel_service(step.service_id)
        if wait:
            client.wait_service(step.service_id, wanted="stopped", timeout_s=timeout_s)
        return
    if step.action == "create":
        answer = client.create_service(step.document)
        step.service_id = str(answer["id"])
        _follow(session, step, answer, wait, timeout_s)
        return
    # by its id: what was shown is done to that one and to no other
    if step.new_revision:
        changes = {field: value for field, value in step.document.items() if field not in ("name", "replicas")}
        answer = client.update_service(step.service_id, {**changes, "replace_config": True})
        _follow(session, step, answer, wait, timeout_s)
    if step.scales:
        _follow(session, step, client.scale_service(step.service_id, int(step.count or 0)), wait, timeout_s)


def _follow(session: Session, step: Step, answer: Json, wait: bool | None, timeout_s: float | None) -> None:
    if wait and answer.get("task_id"):
        story = ServiceStory(session, step.service_id)
        follow_service(
            session,
            step.service_id,
            str(answer["task_id"]),
            timeout_s=timeout_s,
            story=story if step.action == "create" else story.skip(),
        )


def _tell(session: Session, steps: Sequence[Step], *, to_stdout: bool) -> None:
    say: Callable[[str], None] = click.echo if to_stdout else talk
    for step in steps:
        for line in step.lines():
            say(line)
    counts = [f"{sum(step.action == action for step in steps)} to {action}" for action in ("create", "change", "stop")]
    say(f"{', '.join(counts)}, {sum(step.action == 'nothing' for step in steps)} as they should be")


def _show(session: Session, steps: Sequence[Step]) -> None:
    if session.output in ("json", "yaml"):
        show_raw(session, {"services": [step.body() for step in steps]})
    elif session.output == "name":
        for step in steps:
            if step.action != "nothing":
                click.echo(clean(step.name))


def _ask(changes: int) -> None:
    if not sys.stdin.isatty():
        raise BadInput(
            "nobody is there to ask: give --yes to apply it, --dry-run to look", hint="hostler apply --yes ..."
        )
    if not click.confirm(f"apply {changes} change{'s' if changes > 1 else ''}?", err=True):
        raise HostlerError("nothing was changed")


def _change_line(change: Json) -> str:
    before, after = change.get("before"), change.get("after")
    if before is None and after is not None:
        told = f"{_shown(after)} (new)"
    elif after is None and before is not None:
        told = f"{_shown(before)} -> (gone)"
    else:
        told = f"{_shown(before)} -> {_shown(after)}"
    return f"    {clean(change.get('field'))}: {told}"


def _shown(value: object) -> str:
    return "null" if value is None else cell(value) or '""'
