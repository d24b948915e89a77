from __future__ import annotations

import pytest

from app.errors import Unavailable
from app.settings import Settings
from app.stack import listener
from app.stack.listener import AGAIN_S, Watcher, flush


def facts(name: str = "web", **more: str) -> dict[str, str]:
    return {"processname": name, "groupname": "roles", "pid": "7", **more}


def kinds(watcher: Watcher) -> list[str]:
    return [kind for kind, _, _ in watcher.kept]


def test_a_first_start_is_no_news() -> None:
    watcher = Watcher()
    for event in ("STARTING", "RUNNING"):
        watcher.take(f"PROCESS_STATE_{event}", facts(), 0)
    assert kinds(watcher) == []


def test_a_death_and_the_start_after_it_are_told() -> None:
    watcher = Watcher()
    watcher.take("PROCESS_STATE_EXITED", facts(), 0)
    watcher.take("PROCESS_STATE_BACKOFF", facts(tries="1"), 1)
    watcher.take("PROCESS_STATE_RUNNING", facts(pid="9"), 2)
    watcher.take("PROCESS_STATE_RUNNING", facts(pid="9"), 3)
    assert kinds(watcher) == ["child_exited", "child_exited", "child_restarted"]
    assert watcher.kept[-1][1] == {"role": "web", "pid": 9, "exits": 2}


def test_what_was_asked_to_stop_did_not_die() -> None:
    watcher = Watcher()
    watcher.take("PROCESS_STATE_STOPPING", facts(), 0)
    watcher.take("PROCESS_STATE_STOPPED", facts(), 0)
    assert kinds(watcher) == []


def test_a_program_given_up_is_started_anew_later_and_once() -> None:
    watcher = Watcher()
    watcher.take("PROCESS_STATE_FATAL", facts(), 100)
    assert kinds(watcher) == ["child_failed"]
    assert watcher.due(100 + AGAIN_S - 1) == []
    assert watcher.due(100 + AGAIN_S) == ["roles:web"]
    assert watcher.due(100 + AGAIN_S) == []


def test_a_given_up_program_that_was_stopped_stays_so() -> None:
    watcher = Watcher()
    watcher.take("PROCESS_STATE_FATAL", facts(), 0)
    watcher.take("PROCESS_STATE_STOPPED", facts(), 1)
    assert watcher.due(1000) == []


def test_news_wait_for_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher, written, is_down = Watcher(), [], True

    def record(_settings: Settings, kind: str, *_rest: object, **_more: object) -> None:
        if is_down:
            raise Unavailable
        written.append(kind)

    monkeypatch.setattr(listener, "record_event", record)
    watcher.take("PROCESS_STATE_EXITED", facts("postgres"), 0)
    watcher.take("PROCESS_STATE_RUNNING", facts("postgres"), 1)
    settings = Settings.load({})
    flush(watcher, settings)
    assert (written, len(watcher.kept)) == ([], 2)
    is_down = False
    flush(watcher, settings)
    assert written == ["child_exited", "child_restarted"]
    assert not watcher.kept
