"""Idle workers as /health tells them: those that /chat would use, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from app import create_app
from app.usecases import keys
from tests.integration.gateway.conftest import World

Look = Callable[..., tuple[int, str]]
STARTING = (503, "Server is starting up")
ADMIN = "admin-of-a-test-that-counts-idle-workers"


@pytest.fixture
def look(world: World) -> Iterator[Look]:
    """(status, text) of /health, of a process of its own."""
    keys.ensure_admin_key(world.settings, ADMIN)
    with ExitStack() as exits:

        def ask(default_model: str = "") -> tuple[int, str]:
            app = create_app(replace(world.settings, default_model=default_model))
            exits.callback(app.extensions["hostler"].close)
            answer = app.test_client().get("/health", headers={"Accept": "text/plain"})
            chat = app.test_client().post("/chat", json={"prompt": "a"}, headers={"X-API-Key": ADMIN})
            # both say that it starts, or neither does
            assert (answer.status_code == 503) is ((chat.get_json(silent=True) or {}).get("code") == "starting")
            return answer.status_code, answer.get_data(as_text=True)

        yield ask


def idle(count: int) -> tuple[int, str]:
    return 200, f"ok \u2013 workers idle: {count}"


def engine(world: World, replica_id: str, name: str) -> None:
    world.change("UPDATE replicas SET engine = :name WHERE id = :id", id=replica_id, name=name)


def test_what_cannot_chat_is_no_worker(world: World, look: Look) -> None:
    world.add("00000000000a", model="papers")
    engine(world, "00000000000a", "qdrant")
    world.turn()
    assert look() == STARTING
    for number in (1, 2):
        world.add(f"00000000000{number}", model="tiny")
    world.turn()
    assert look() == idle(2)
    world.add("00000000000b", model="other")
    world.turn()
    # which of two models, nobody said
    assert look() == idle(0)
    assert look("other") == idle(1)
    assert look("tiny") == idle(2)
    assert look("third") == STARTING


def test_a_worker_that_was_there_is_not_awaited_as_the_first(world: World, look: Look) -> None:
    world.add("00000000000a", model="tiny")
    world.change("UPDATE replicas SET timestamps = jsonb_build_object('ready', hostler_now())")
    world.turn()
    assert look("tiny") == idle(1)
    world.release("00000000000a")
    world.turn()
    assert look() == look("tiny") == idle(0)
