"""What dies meanwhile: the API, the database, the registrar, its key. Nothing that lives is forgotten."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from app.db.engine import Database
from app.errors import Unavailable
from app.usecases import keys, registrars, registrations
from app.usecases.context import Actor, Context
from tests.integration.registry.conftest import ADMIN, Api
from tests.support.embedded import plain_url, wait_until, with_database

CHAT = {"type": "chat"}


@contextmanager
def watching(ctx: Context) -> Iterator[None]:
    """An agent's watch, ten times a second."""
    stop, watch = threading.Event(), registrations.Watch()

    def run() -> None:
        while not stop.wait(0.1):
            watch.turn(ctx)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_cut_network_ends_the_registration_within_the_lease(start_api: Callable[..., Api]) -> None:
    api = start_api(register_lease_s=9.0)
    cut, stays = api.register("cut", "localhost:1001", CHAT), api.register("stays", "localhost:1002", CHAT)
    begun = time.monotonic()
    cut.cut()
    wait_until(lambda: api.ids() == ["stays"], 9.5, "the end of what was cut off")
    # not before it could know: what is alive was not taken for dead
    assert time.monotonic() - begun > 2
    assert b'"alive"' in stays.read(b'"alive"')


def test_a_killed_api_forgets_nobody(start_api: Callable[..., Api], ctx: Context) -> None:
    api = start_api(register_lease_s=1.0, register_grace_s=30.0)
    stream = api.register("r1", "localhost:1001", CHAT)
    api.kill()
    with watching(ctx):
        # the registrar notices at once
        stream.read_to_end(5)
        api.start()
        # longer than the lease
        time.sleep(1.5)
        assert api.route(type="chat") == {"endpoint": "localhost:1001", "replica_id": "r1"}
        back = api.register("r1", "localhost:1001", CHAT)
        back.close()
        wait_until(lambda: api.route(type="chat") is None, 2, "the end of the one that came back")


def test_who_does_not_come_back_goes_when_the_grace_is_over(start_api: Callable[..., Api], ctx: Context) -> None:
    api = start_api(register_lease_s=1.0, register_grace_s=1.0)
    api.register("gone", "localhost:1001", CHAT)
    api.kill()
    api.start()
    stays = api.register("stays", "localhost:1002", CHAT)
    short = Context.open(api.settings, pool_size=1)
    try:
        with watching(short):
            wait_until(lambda: api.ids() == ["stays"], 15, "what nobody holds to end")
            time.sleep(2.5)
            assert api.ids() == ["stays"]
    finally:
        short.close()
    assert api.ask("GET", "/api/v1/registrations/gone").json()["end_reason"] == "lapsed"
    stays.close()


def test_a_frozen_api_takes_back_what_lapsed(start_api: Callable[..., Api]) -> None:
    api = start_api(register_lease_s=1.0, register_grace_s=1.0, web_workers=1)
    stream = api.register("r1", "localhost:1001", CHAT)
    short = Context.open(api.settings, pool_size=1)
    try:
        with watching(short):
            api.signal("web", signal.SIGSTOP)
            wait_until(lambda: _state(short, "r1") == "ended", 15, "the lapse of what a frozen process holds")
            api.signal("web", signal.SIGCONT)
            wait_until(lambda: _state(short, "r1") == "live", 10, "it to be taken back")
        assert api.route(type="chat") is not None
        stream.close()
        wait_until(lambda: api.route(type="chat") is None, 5, "its end")
    finally:
        short.close()


def _state(ctx: Context, replica_id: str) -> str:
    return str(registrations.get(ctx, replica_id)["state"])


def test_a_jump_of_the_clock_ends_nothing(start_api: Callable[..., Api], ctx: Context) -> None:
    api = start_api(register_lease_s=1.0, register_grace_s=1.0)
    api.register("r1", "localhost:1001", CHAT)
    with watching(ctx), psycopg.connect(plain_url(api.settings.database_url), autocommit=True) as connection:
        connection.execute("UPDATE clock SET shift = interval '1 day'")
        time.sleep(2.5)
        assert api.ids() == ["r1"]
        connection.execute("UPDATE clock SET shift = interval '-1 day'")
        time.sleep(2.5)
        assert api.ids() == ["r1"]


def test_the_database_is_away_for_longer_than_the_grace(start_api: Callable[..., Api]) -> None:
    """Nobody can renew meanwhile: whoever sees it back first must not end what the others hold."""
    api = start_api(register_lease_s=1.0, register_grace_s=1.0, web_workers=1)
    kept, ends = api.register("kept", "localhost:1001", CHAT), api.register("ends", "localhost:1002", {"type": "embed"})
    assert api.route(type="chat") is not None
    name = urlsplit(api.settings.database_url).path.strip("/")
    maintenance = plain_url(with_database(api.settings.database_url, "postgres"))
    short = Context(api.settings, Database(api.settings.database_url, pool_size=1))
    watch = registrations.Watch()
    watch.turn(short)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        ends.close()
        # what is known is found all the while
        for _ in range(40):
            assert api.route(type="chat") == {"endpoint": "localhost:1001", "replica_id": "kept"}
            time.sleep(0.1)
        assert api.route(type="embed") is None
        connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert watch.turn(short) == 0
    wait_until(lambda: _answers(api) == ["kept"], 15, "what ended meanwhile to be gone, and nothing else")
    assert watch.turn(short) == 0
    short.close()
    assert not kept.is_over


def _answers(api: Api) -> list[str]:
    answer = api.ask("GET", "/registry")
    return [one["replica_id"] for one in answer.json()["replicas"]] if answer.status_code == 200 else []


def test_a_revoked_key_registers_nothing_any_more(api: Api, ctx: Context, make_key: Callable[..., str]) -> None:
    key = make_key("register")
    stream = api.register("r1", "localhost:1001", CHAT, key=key)
    owner = api.ask("GET", "/api/v1/registrations/r1").json()["owner"]
    assert api.ask("DELETE", f"/api/v1/keys/{owner}").status_code == 204
    with watching(ctx):
        assert b'"ended"' in stream.read_to_end(5)
    assert api.route(type="chat") is None
    assert api.ask("GET", "/api/v1/registrations/r1").json()["end_reason"] == "key_ended"


@pytest.mark.parametrize("count", [40])
def test_many_come_and_go_at_once(api: Api, count: int) -> None:
    """A storm of the same few ids, all at once, and of clients that leave before they are answered."""
    streams = []
    for number in range(count):
        body = {"endpoint": "localhost:1", "capabilities": [CHAT]}
        api.send({"replica_id": f"left-{number % 4}", **body}).close()
        streams.append(api.send({"replica_id": f"r{number % 4}", **body}))
    for stream in streams:
        assert b'"registered"' in stream.read(b'"registered"')
    last = [api.register(f"r{number}", f"localhost:200{number}", CHAT) for number in range(4)]
    for stream in streams:
        stream.close()
    wait_until(lambda: api.ids() == ["r0", "r1", "r2", "r3"], 5, "the last of each")
    found = {one["endpoint"] for one in api.ask("GET", "/registry").json()["replicas"]}
    assert found == {f"localhost:200{number}" for number in range(4)}
    for stream in last:
        stream.close()
    wait_until(lambda: api.ids() == [], 5, "all of them to end")


def test_what_was_committed_and_never_heard_of_is_ended(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database may go away between its commit and its word for it: the caller is refused, and the row is there."""
    monkeypatch.setattr(registrars, "STRAY_S", 0.3)
    made = keys.create(ctx, ADMIN, {"name": "k", "role": "register"}, None).record
    actor = Actor(made["id"], made["name"], "register")
    body = {"endpoint": "localhost:1001", "capabilities": [CHAT]}
    held = registrations.register(ctx, actor, {**body, "replica_id": "heard"})
    registrar = registrars.registrar_of(ctx)
    change = ctx.database.change

    def commit_and_lose(act: Callable[..., Any]) -> Any:
        change(act)
        raise Unavailable("The connection to the database was lost.")

    with monkeypatch.context() as lossy:
        lossy.setattr(ctx.database, "change", commit_and_lose)
        with pytest.raises(Unavailable):
            registrations.register(ctx, actor, {**body, "replica_id": "unheard"})
    assert _state(ctx, "unheard") == "live"
    wait_until(lambda: _state(ctx, "unheard") == "ended", 5, "the end of what nobody holds")
    assert _state(ctx, "heard") == "live"
    registrar.end(held)
    wait_until(lambda: _state(ctx, "heard") == "ended", 5, "the end of the other")


def test_who_is_taken_out_before_his_stream_begins_gets_no_stream(ctx: Context) -> None:
    made = keys.create(ctx, ADMIN, {"name": "k", "role": "register"}, None).record
    body = {"endpoint": "localhost:1001", "capabilities": [CHAT], "replica_id": "r1"}
    held = registrations.register(ctx, Actor(made["id"], made["name"], "register"), body)
    registrations.remove(ctx, ADMIN, "r1")
    wait_until(lambda: held.ended, 5, "the process to hear of it")
    cut = threading.Event()
    registrars.registrar_of(ctx).deliver(held, cut.set)
    assert cut.is_set()
