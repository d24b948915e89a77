"""The lifecycle table: what may follow what, and that the README and the schema say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.domain.lifecycle import (
    EDGES,
    LAUNCHING,
    LIVE,
    SERVING,
    STATE_MEANING,
    TERMINAL,
    IllegalTransition,
    State,
    check_path,
    mermaid,
    sources_of,
)

ROOT = Path(__file__).resolve().parents[3]


def test_the_readme_diagram_is_the_table() -> None:
    diagram = re.search(r"```mermaid\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert diagram is not None
    assert diagram[1] == mermaid()
    drawn = re.findall(r"^ +(\w+) --> (\w+)$", diagram[1], re.MULTILINE)
    assert {(State(source), State(target)) for source, target in drawn} == EDGES


def test_the_migrations_hold_the_table() -> None:
    found: list[tuple[State, State]] = []
    for script in sorted((ROOT / "migrations/versions").glob("*.sql")):
        for rows in re.findall(r"INSERT INTO lifecycle_edges.*?VALUES\n(.*?);", script.read_text(), re.DOTALL):
            found += [(State(a), State(b)) for a, b in re.findall(r"\('(\w+)', '(\w+)'\)", rows)]
    assert len(found) == len(EDGES)
    assert set(found) == EDGES


def test_every_state_has_a_meaning_and_can_be_reached() -> None:
    assert set(STATE_MEANING) == set(State)
    reached, ahead = {State.PENDING}, [State.PENDING]
    while ahead:
        source = ahead.pop()
        new = {end for start, end in EDGES if start is source} - reached
        reached |= new
        ahead += new
    assert reached == set(State)


def test_whatever_lives_can_be_stopped_and_can_fail() -> None:
    for state in LIVE - {State.STOPPING}:
        assert (state, State.STOPPING) in EDGES
    for state in LIVE:
        assert (state, State.FAILED) in EDGES


def test_what_ended_can_only_be_restarted() -> None:
    assert {end for start, end in EDGES if start in TERMINAL} == {State.PENDING}


def test_only_the_queue_ends_without_stopping_first() -> None:
    assert sources_of(State.STOPPED) == {State.PENDING, State.STOPPING}


def test_groups_do_not_overlap() -> None:
    assert not set(LAUNCHING) & set(SERVING)
    assert set(LAUNCHING) | set(SERVING) | {State.UNREACHABLE, State.STOPPING} == LIVE


def test_a_path_is_legal_step_by_step() -> None:
    check_path([*LAUNCHING, State.READY, State.UNHEALTHY, State.READY, State.STOPPING, State.STOPPED, State.PENDING])
    check_path([State.READY])
    with pytest.raises(IllegalTransition, match="stopped -> ready"):
        check_path([State.STOPPING, State.STOPPED, State.READY])
    with pytest.raises(IllegalTransition, match="pending -> ready"):
        check_path([State.PENDING, State.READY])
