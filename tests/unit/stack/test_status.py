"""Which process stands for a role where people look."""

from __future__ import annotations

from app.stack.status import Row, leaders


def test_the_one_that_started_the_others_stands_for_them() -> None:
    rows = (
        Row("postgres", 12, ("/s",), parent=9000),  # pids began again at the top
        Row("postgres", 9000, ("/s",), parent=8000),
        Row("web", 8100, (), parent=8000),
        Row("web", 8101, (), parent=8100),
        Row("engine", 40, (), "a", parent=1),
        Row("engine", 41, ("127.0.0.1:1",), "b", parent=1),
        Row("beat", None, (), state="backoff"),
    )
    shown = [(row.role, row.replica_id, row.pid, row.listen, count) for row, count in leaders(rows)]
    assert shown == [
        ("postgres", None, 9000, ("/s",), 2),
        ("web", None, 8100, (), 2),
        ("engine", "a", 40, (), 1),
        ("engine", "b", 41, ("127.0.0.1:1",), 1),
        ("beat", None, None, (), 1),
    ]
