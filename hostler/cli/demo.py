"""``hostler demo``: the whole way once, on this host, from no stack at all to an answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import Any

import click

from hostler.cli import following
from hostler.cli.history import time_per_state
from hostler.cli.model import write_tiny
from hostler.cli.options import Session, Verb, pass_session
from hostler.cli.show import talk
from hostler.cli.text import clean, fine
from hostler.connection import find_models_dir
from hostler.errors import HostlerError, NotFound, TimedOut, Unreachable

Json = dict[str, Any]
MODEL = "tiny"
PROMPT = "Hello, engine."
LABEL = {"demo": "yes"}
MODEL_SEEN_S = 15.0
READY_S = 120.0


@click.command("demo", cls=Verb)
@pass_session
def demo(session: Session) -> None:
    """Start the stack, serve a tiny model with llama.cpp, ask it something, and show how that went.

    Running it again starts one more replica, in seconds.
    """
    _ensure_up(session)
    _ensure_model(session)
    began = time.monotonic()
    asked = session.client.create_replica(
        {"server_mode": "replica", "model_name": MODEL, "pool": "local", "labels": LABEL, "wait_for_ready": False},
        wait_s=0,
    )
    replica_id = str(asked["replica_id"])
    talk(f"asked for a replica of {MODEL}: {replica_id}")
    replica = following.follow_launch(session, replica_id, str(asked["task_id"]), timeout_s=READY_S)
    ready_s = time.monotonic() - began
    asked_at = time.monotonic()
    made = session.client.generate(PROMPT, model_id=MODEL, max_tokens=24)
    answer_s = time.monotonic() - asked_at
    click.echo(f"\n{replica['base_url']} was ready {fine(ready_s)} after the request.")
    click.echo(f"Asked through the gateway, {MODEL} answered in {fine(answer_s)}:")
    click.echo(f"  > {PROMPT}\n  {clean(made.get('text')) or '(nothing)'}")
    click.echo("  (the model's weights are random, so is its answer; the server is a real llama.cpp)")
    _show_timeline(session, replica_id)
    _show_next(replica_id)


def _ensure_up(session: Session) -> None:
    try:
        health = session.client.health()
        talk(f"a stack is up: {session.client.connection.url}, version {health.get('version')}")
        return
    except Unreachable:
        if session.url or os.environ.get("HOSTLER_URL"):
            # that is another stack than the one we could start
            raise
    talk("starting the stack ...")
    # a process of its own: what it leaves running must share nothing with this one
    argv = [sys.executable, "-P", "-m", "hostler", "up", "-d", "--state-dir", str(session.folder)]
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise HostlerError("the stack did not start", hint="hostler doctor")
    session.reconnect()


def _ensure_model(session: Session) -> None:
    try:
        session.client.get_model(MODEL)
    except NotFound:
        path = write_tiny(find_models_dir(session.folder, os.environ), MODEL)
        talk(f"wrote a tiny model with random weights: {path}")
        _await_model(session)


def _await_model(session: Session) -> None:
    deadline = time.monotonic() + MODEL_SEEN_S
    while True:
        try:
            session.client.get_model(MODEL)
            return
        except NotFound as error:
            if time.monotonic() > deadline:
                raise TimedOut(f"Hostler does not see the model {MODEL}", hint="hostler model list") from error
        time.sleep(0.1)


def _show_timeline(session: Session, replica_id: str) -> None:
    click.echo("\nIts way there:")
    for state, seconds in time_per_state(session.client.replica_events(replica_id).get("events", [])):
        click.echo(f"  {clean(state):<18} {'since then' if seconds is None else fine(seconds):>12}")


def _show_next(replica_id: str) -> None:
    commands = {
        f"hostler replica get {replica_id}": "all that is known of it",
        f"hostler replica events {replica_id}": "what it went through, and why",
        f"hostler replica logs {replica_id}": "what llama.cpp wrote",
        f"hostler replica stop {replica_id}": "put it away (-l demo=yes: all of the demo's)",
        f"hostler generate 'Once' -m {MODEL}": "ask the model something else",
        "hostler down": "stop everything on this host",
    }
    click.echo("\nType next:")
    if shutil.which("hostler") is None:
        # `make demo` runs it by its path
        click.echo(f"  {'. .venv/bin/activate':<38} once, or type {sys.argv[0]} instead of hostler")
    for command, meaning in commands.items():
        click.echo(f"  {command:<38} {meaning}")
