"""Far logs through the API of another host: text, tail, streams that broke, services, and what cannot be read now."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from app import create_app
from app.settings import Settings
from app.usecases import far_logs, keys, logs, services
from tests.integration.api.conftest import Caller
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database
from tests.support.freezing import freeze
from tests.support.problems import assert_problem
from tests.support.services import create

LINES = [f"line {number}" for number in range(30)]


@pytest.fixture(scope="module")
def crew(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("far-logs")
    with (
        fresh_database(parts, migrated) as url,
        running_crew(crew_settings(parts, url, folder), folder, roles=("worker", "worker-control", "agent")) as crew,
    ):
        yield crew


@pytest.fixture(scope="module")
def user(crew: Crew, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Asks an API on a host that runs nothing."""
    state = tmp_path_factory.mktemp("elsewhere")
    key = f"user-{secrets.token_hex(16)}"
    keys.ensure_admin_key(crew.settings, key)
    app = create_app(replace(crew.settings, node_name="elsewhere", state_dir=state))
    yield Caller(app.test_client(), key)
    app.extensions["hostler"].close()


@pytest.fixture(scope="module")
def replica(crew: Crew) -> Iterator[str]:
    made = crew.create(mock={"log_lines": LINES})
    crew.await_ready(made)
    yield made
    crew.end(made)


def _said(crew: Crew, replica: str) -> list[str]:
    return [line.rstrip("\n") for line in logs.read(crew.ctx, replica)]


def _events(text: str) -> list[tuple[str, str, str]]:
    """(event, id, data) of a stream that has ended."""
    blocks = [dict(line.split(": ", 1) for line in block.split("\n") if ": " in line) for block in text.split("\n\n")]
    return [(one["event"], one.get("id", ""), one.get("data", "")) for one in blocks if "event" in one]


@contextmanager
def _frozen_agent(crew: Crew) -> Iterator[None]:
    freeze(crew.processes["agent"].pid)
    try:
        yield
    finally:
        os.kill(crew.processes["agent"].pid, signal.SIGCONT)


def test_text_and_tail(crew: Crew, user: Caller, replica: str) -> None:
    said = _said(crew, replica)
    assert set(LINES) <= set(said)
    path = f"/api/v1/replicas/{replica}/logs"
    assert user.get(path).get_data(as_text=True).splitlines() == said
    assert user.get(f"{path}?tail=3&attempt=1").get_data(as_text=True).splitlines() == said[-3:]
    assert user.get(f"{path}?tail=0").get_data(as_text=True) == ""
    assert_problem(user.get(f"{path}?attempt=2"), 404, "not_found")
    assert_problem(user.get(f"{path}?attempt=2&follow=true"), 404, "not_found")


def test_streams_go_on_behind_the_last_event(crew: Crew, user: Caller) -> None:
    ended = crew.create(mock={"log_lines": LINES, "exit_on_start": 3})
    crew.await_state(ended, "failed")
    crew.await_released(ended)
    said = _said(crew, ended)
    path = f"/api/v1/replicas/{ended}/logs?follow=true"
    events = _events(user.get(path).get_data(as_text=True))
    assert [data for _, _, data in events] == [*said, ""]
    assert [event for event, _, _ in events] == ["log"] * len(said) + ["end"]
    for at in (0, 10, len(said) - 1):
        rest = _events(user.get(path, Last_Event_ID=events[at][1]).get_data(as_text=True))
        assert [data for _, _, data in rest] == [*said[at + 1 :], ""]
    tail = _events(user.get(f"{path}&tail=2").get_data(as_text=True))
    assert [data for _, _, data in tail] == [*said[-2:], ""]


def test_a_service_is_read_and_followed_alike(crew: Crew, user: Caller) -> None:
    body = {"replica_config": {"mock": {"log_lines": LINES}}}
    service = create(crew.ctx, crew.actor, 2, body=body, pool="local").service_id
    members = [row.replica_id for row in crew.rows("SELECT replica_id FROM service_members ORDER BY ordinal")]
    for member in members:
        crew.await_ready(member)
    path = f"/api/v1/services/{service}/logs"
    wanted = [f"{member} | {line}" for member in members for line in _said(crew, member)]
    assert user.get(path).get_data(as_text=True).splitlines() == wanted
    services.cancel(crew.ctx, crew.actor, service)
    events = _events(user.get(f"{path}?follow=true").get_data(as_text=True))
    wanted = [f"{member} | {line}" for member in members for line in _said(crew, member)]
    assert sorted(data for event, _, data in events if event == "log") == sorted(wanted)
    assert events[-1][0] == "end"
    places = [place for event, place, _ in events if event == "log"]
    rest = _events(user.get(f"{path}?follow=true", Last_Event_ID=places[-3]).get_data(as_text=True))
    assert sorted(data for _, _, data in rest) == sorted(data for _, _, data in events[-3:])


def test_what_cannot_be_read_now_is_said(
    crew: Crew, user: Caller, replica: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far_logs, "GIVE_UP_S", 1.0)
    with _frozen_agent(crew):
        crew.change("DELETE FROM log_copies")
        answer = user.get(f"/api/v1/replicas/{replica}/logs")
        assert_problem(answer, 503, "log_away")
        assert int(answer.headers["Retry-After"]) > 0
    monkeypatch.undo()
    assert user.get(f"/api/v1/replicas/{replica}/logs?tail=1").status_code == 200
