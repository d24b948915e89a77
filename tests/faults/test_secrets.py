"""Trap 12: no secret in logs, events, tasks, messages, process lists or files that stay; the engine gets its values."""

from __future__ import annotations

import base64
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from app.usecases import replicas
from app.usecases.creates import plan_create
from app.usecases.restarts import request_restart
from tests.faults.stepper import POOL
from tests.faults.test_bells import broker
from tests.support.crew import Crew

#: What a shell, a log line or a careless template would break on.
VALUE = "s3cr3t-of-the-user $(id) `id` 'single' \"double\"\nsecond line; rm -rf /"
MARK = "s3cr3t-of-the-user"
_RING = f'"pool": "{POOL}"'


@pytest.fixture(scope="module")
def seen(crew: Crew) -> dict[str, str]:
    """Everything that is written, sent or listed while secrets pass through: place -> content."""
    collected: dict[str, str] = {}
    worker = crew.processes["worker"].pid
    with _messages(crew) as messages:
        os.killpg(worker, signal.SIGSTOP)
        try:
            made = _create_all(crew)
            # the first ring went to the frozen worker's open socket, and the next comes when the doorbell's gap is over
            crew.await_that(lambda: _RING in _dump(crew), "a message that waits in the broker")
            collected["broker keys"] = _dump(crew)
            collected["command lines while queued"] = _command_lines()
        finally:
            os.killpg(worker, signal.SIGCONT)
        good, failing, undiagnosed, unlaunched = made
        crew.await_ready(good)
        for replica in (failing, undiagnosed, unlaunched):
            crew.await_released(replica)
        request_restart(crew.ctx, crew.actor, good)
        crew.await_that(lambda: crew.replica(good).attempt == 2, "the second attempt")
        crew.await_ready(good)
        collected["command lines"] = _command_lines()
        collected["environment of the engine"] = Path(f"/proc/{crew.engines(good)[0]}/environ").read_bytes().decode()
        collected["shown"] = repr([replicas.get(crew.ctx, replica) for replica in made])
        crew.end(good)
    collected["messages"] = "\n".join(messages)
    collected["logs"] = "\n".join(crew.log(role, 10**8) for role in crew.processes)
    collected["parts' logs"] = "\n".join(
        path.read_text(errors="replace") for path in Path(os.path.dirname(_socket(crew))).parent.rglob("*.log")
    )
    collected["files of attempts"] = _files(crew.settings.state_dir / "attempts")
    for table in ("events", "tasks", "attempts", "replicas", "leases", "idempotency", "sweeps", "workers", "nodes"):
        collected[f"table {table}"] = _table(crew, table)
    collected["plan"] = repr(
        plan_create(
            crew.ctx, crew.actor, {"server_mode": "replica_mock", "model_name": "m", "environment": {"HF_TOKEN": VALUE}}
        )
    )
    return collected


def test_the_value_reaches_the_engine_as_it_was_written(seen: dict[str, str]) -> None:
    assert f"HF_TOKEN={VALUE}" in seen["environment of the engine"].split("\0")


def test_there_was_something_to_look_at(seen: dict[str, str]) -> None:
    assert _RING in seen["broker keys"]
    assert "hostler.create" in seen["messages"]
    assert "outcome=ready" in seen["logs"]
    assert "transition" in seen["table events"]
    assert "mock_server" in seen["command lines"]


def test_no_value_of_a_user_is_anywhere(seen: dict[str, str]) -> None:
    seen = {place: content for place, content in seen.items() if place != "environment of the engine"}
    assert [place for place, content in seen.items() if MARK in content] == []


@pytest.mark.parametrize("secret", ["engine key", "database password", "secret key"])
def test_no_secret_of_the_stack_is_anywhere(crew: Crew, seen: dict[str, str], secret: str) -> None:
    value = {
        "engine key": crew.ctx.engine_key,
        "database password": str(urlsplit(crew.settings.database_url).password),
        "secret key": (crew.settings.state_dir / "secrets" / "secret-key").read_text().strip(),
    }[secret]
    assert len(value) > 16
    where = [place for place, content in seen.items() if value in content]
    allowed = ["environment of the engine"] if secret == "engine key" else []
    assert where == allowed


def test_an_engine_gets_nothing_of_the_workers_environment(crew: Crew, seen: dict[str, str]) -> None:
    names = {item.partition("=")[0] for item in seen["environment of the engine"].split("\0") if item}
    assert names == {
        "PATH", "HOME", "LANG", "HF_TOKEN", "HOSTLER_ENGINE_KEY", "HOSTLER_MARK", "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
    }  # fmt: skip


def _create_all(crew: Crew) -> list[str]:
    """One that works, and one for each way in which something is told about a failure."""
    more = {"pool": POOL, "environment": {"HF_TOKEN": VALUE}}
    return [
        crew.create(**more),
        crew.create(mock={"exit_on_start": 3, "log_lines": ["bye"]}, **more),
        crew.create(mock={"error_rate": 1}, **more),
        crew.create(pool="silent", options={"fail_launch": "always"}, environment={"HF_TOKEN": VALUE}),
    ]


@contextmanager
def _messages(crew: Crew) -> Iterator[list[str]]:
    """Everything that is published on Redis meanwhile: Celery's events, which Flower shows."""
    heard: list[str] = []
    client = broker(crew)
    pubsub = client.pubsub()
    pubsub.psubscribe("*")
    stop = threading.Event()

    def listen() -> None:
        while not stop.is_set():
            message = pubsub.get_message(timeout=0.2)
            if message:
                heard.append(_readable(repr(message)))

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()
        pubsub.close()
        client.close()


def _dump(crew: Crew) -> str:
    """Names and contents of all keys."""
    client = broker(crew)
    found = []
    for key in client.keys("*"):
        kind = client.type(key).decode()
        read = {
            "list": lambda key=key: client.lrange(key, 0, -1),
            "set": lambda key=key: client.smembers(key),
            "hash": lambda key=key: client.hgetall(key),
            "zset": lambda key=key: client.zrange(key, 0, -1),
            "string": lambda key=key: client.get(key),
        }[kind]
        found.append(f"{key!r} {read()!r}")
    client.close()
    return _readable("\n".join(found))


def _readable(content: str) -> str:
    """With the bodies of messages, which travel as base64."""
    bodies = re.findall(r'"body": "([A-Za-z0-9+/=]+)"', content)
    return "\n".join([content, *(base64.b64decode(body).decode(errors="replace") for body in bodies)])


def _command_lines() -> str:
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.append(Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(found)


def _files(folder: Path) -> str:
    return "\n".join(
        f"{path} {path.read_text(errors='replace')}"
        for path in folder.rglob("*")
        if path.is_file() and path.name != "out"
    )


def _table(crew: Crew, table: str) -> str:
    with crew.ctx.database.read() as connection:
        return "\n".join(str(row[0]) for row in connection.execute(text(f"SELECT t::text FROM {table} t")))


def _socket(crew: Crew) -> str:
    return crew.settings.broker_url.removeprefix("redis+socket://")
