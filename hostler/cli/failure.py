"""Errors as a person reads them: what happened, which fields, and the command to type next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import IO, Any

import click

from hostler.cli.show import talk
from hostler.cli.text import clean, clean_block
from hostler.errors import (
    ApiError,
    Conflict,
    Forbidden,
    HostlerError,
    LaunchFailed,
    NotFound,
    ReplicaFailed,
    ServiceFailed,
    Unauthenticated,
)

_HINTS_BY_CODE = {
    "unknown_model": "hostler model list",
    "unknown_pool": "hostler pool list",
    "unknown_recipe": "hostler recipe list",
    "queue_full": "hostler replica list --status pending",
    "unavailable": "hostler doctor",
    "not_hostler": "check --url, HOSTLER_URL",
}

_NEEDED_ROLE = re.compile(r"key of role ([a-z]+)")
_INSTANCE = re.compile(r"/api/v1/(service|replica|task|pool|model|node|key|registration)s(?:/([A-Za-z0-9._-]+))?")


class Failure(click.ClickException):
    """A HostlerError on its way to the user and the exit code."""

    def __init__(self, error: HostlerError) -> None:
        super().__init__(error.message)
        self.error = error
        # click reads it from the instance, its annotation notwithstanding
        self.exit_code = error.exit_code  # type: ignore[misc]

    def show(self, file: IO[Any] | None = None) -> None:
        for line in failure_lines(self.error):
            click.echo(line, file=file, err=file is None)


class Interrupted(click.ClickException):
    """Ctrl-C: the exit code that shells use for it, and nothing to read."""

    exit_code = 130

    def __init__(self) -> None:
        super().__init__("interrupted")

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo("interrupted", file=file, err=file is None)


def raise_first(refused: Sequence[HostlerError]) -> None:
    """Tell all refusals: the first becomes the exit code."""
    for error in refused[1:]:
        for line in failure_lines(error):
            talk(line)
    if refused:
        raise refused[0]


def failure_lines(error: HostlerError) -> list[str]:
    """What is said on stderr, cleaned for a terminal."""
    lines = [f"error: {clean(error.message)}"]
    if isinstance(error, ApiError):
        lines += [f"  {clean(name)}: {clean(text)}" for name, texts in error.errors.items() for text in texts]
    log_tail = _log_tail(error)
    if log_tail.strip():
        lines.append("the end of its log:")
        lines += [f"  | {line}" for line in clean_block(log_tail).rstrip("\n").split("\n")]
    hint = next_command(error)
    if hint:
        lines.append(f"next: {clean(hint)}")
    if isinstance(error, ApiError) and error.request_id:
        lines.append(f"request id: {clean(error.request_id)}")
    return lines


def _log_tail(error: HostlerError) -> str:
    if isinstance(error, ReplicaFailed | ServiceFailed):
        return error.log_tail
    return str(error.body.get("log_tail") or "") if isinstance(error, LaunchFailed) else ""


def next_command(error: HostlerError) -> str:
    """The command to type next, or what to do where no command helps; empty when there is nothing to say."""
    if error.hint:
        return error.hint
    if "`hostler " in error.message:
        # the server said it already
        return ""
    if isinstance(error, Unauthenticated):
        return "set HOSTLER_API_KEY or give --key-file; on the stack's own host, --state-dir finds the key"
    if isinstance(error, Forbidden):
        needed = _NEEDED_ROLE.search(error.message)
        # where it is not the role, the server's words say what is
        return f"ask an admin: hostler key create NAME --role {needed[1]}" if needed else ""
    if isinstance(error, ApiError):
        after_s = error.retry_after_s
        wait = f"try again in {after_s:g} s" if after_s else ""
        return "; ".join(part for part in (wait, _HINTS_BY_CODE.get(error.code) or _look_at(error)) if part)
    return ""


def _look_at(error: ApiError) -> str:
    """The command that shows what there is (404) or why the state forbids it (409), by the problem's ``instance``."""
    match = _INSTANCE.search(str(error.body.get("instance") or ""))
    if match is None:
        return ""
    noun, name = match.groups()
    if isinstance(error, NotFound):
        return f"hostler {noun} list"
    if isinstance(error, Conflict) and name:
        return f"hostler {noun} {'explain' if noun in ('replica', 'service') else 'get'} {name}"
    return ""
