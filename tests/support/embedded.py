"""Real embedded parts for tests: Postgres and Redis started in a second, and a fresh database for each test."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import redis
from psycopg import sql

from app.settings import Settings
from app.stack.layout import Layout, remove_run_dir
from app.stack.places import remove_place
from app.stack.postgres import postgres_argv, postgres_env
from app.stack.prepare import make_state_dir, prepare
from app.stack.redis import redis_argv, redis_env
from app.stack.runas import Account, as_user
from app.stack.urls import broker_url, database_url
from tests.support.bound import bound
from tests.support.patience import patience

_UP_S = 30


@contextmanager
def embedded_parts(tmp: Path, *, with_redis: bool = True) -> Iterator[Settings]:
    """Postgres and Redis of a state dir below ``tmp``; yields Settings with ``database_url`` and ``broker_url`` set.

    The database ``hostler`` is empty: not migrated. Both end with the context, and so does their data.
    """
    settings = Settings.load({}, state_dir=tmp / "state")
    make_state_dir(settings.state_dir)
    layout = Layout(settings.state_dir)
    chosen = prepare(settings, fast=True)
    running: list[subprocess.Popen[bytes]] = []
    try:
        running.append(_start(layout, "postgres", _postgres_argv(settings), postgres_env(), chosen.postgres))
        if with_redis:
            running.append(_start(layout, "redis", redis_argv(settings), redis_env(), chosen.rest))
        url = database_url(settings)
        wait_until(lambda: _answers(url), _UP_S, f"Postgres; see {layout.logs}")
        if with_redis:
            wait_until(lambda: _redis_answers(layout), _UP_S, f"Redis; see {layout.logs}")
        yield replace(settings, database_url=url, broker_url=broker_url(settings) if with_redis else "")
    finally:
        end_parts(running, layout)


def end_parts(running: list[subprocess.Popen[bytes]], layout: Layout) -> None:
    """End Postgres and Redis and remove what they had outside of the state dir."""
    for process in running:
        # Postgres takes it for "disconnect everybody and stop"
        process.send_signal(signal.SIGINT)
    for process in running:
        process.wait(_UP_S)
    remove_place(layout)
    remove_run_dir(layout.state_dir)


@contextmanager
def fresh_database(settings: Settings, template: str = "hostler", *, name: str = "") -> Iterator[str]:
    """URL of a new database, a copy of ``template`` (nobody may be connected to that); dropped afterwards."""
    name = name or f"t_{uuid4().hex[:12]}"
    with _maintenance(settings) as connection:
        connection.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    try:
        yield with_database(settings.database_url, name)
    finally:
        with _maintenance(settings) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def plain_url(url: str) -> str:
    """For psycopg, which knows no driver names."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def wait_until(condition, timeout_s: float, what: str | Callable[[], str]):  # type: ignore[no-untyped-def]
    """The first true value of ``condition()``; AssertionError naming ``what`` (as it is then) after ``timeout_s``."""
    begun, timeout_s = time.monotonic(), patience(timeout_s)
    while True:
        value = condition()
        if value:
            return value
        waited_s = time.monotonic() - begun
        assert waited_s < timeout_s, f"{timeout_s} s went by without {what() if callable(what) else what}"
        # whoever waits long asks less often: most of a test run would be asking otherwise
        time.sleep(min(0.1, max(0.01, waited_s / 20)))


def _start(
    layout: Layout, name: str, argv: list[str], env: dict[str, str], account: Account
) -> subprocess.Popen[bytes]:
    with open(layout.logs / f"{name}.log", "ab") as log:
        return subprocess.Popen(
            [*bound("INT"), *argv],
            env=env,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            umask=0o077,
            start_new_session=True,
            **as_user(account),
        )


def _answers(url: str) -> bool:
    try:
        psycopg.connect(plain_url(url), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(layout: Layout) -> bool:
    client = redis.Redis(unix_socket_path=str(layout.redis_socket))
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()


def _postgres_argv(settings: Settings) -> list[str]:
    # an autovacuum worker is the superuser's, and in a database with one DROP ... WITH (FORCE) is refused to us
    return [*postgres_argv(settings, fast=True), "-c", "autovacuum=off", "-c", "max_wal_size=256MB"]


@contextmanager
def _maintenance(settings: Settings) -> Iterator[psycopg.Connection]:
    # not the template itself: it cannot be copied while we are in it
    url = plain_url(with_database(settings.database_url, "postgres"))
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection
