"""The mock backend's world on disk: counts, refusals, thousands of handles."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from workers.backends.base import (
    BackendContext,
    BackendError,
    BackendUnavailable,
    Launch,
    LaunchRefused,
    Liveness,
)
from workers.backends.mock import MockBackend


@pytest.fixture
def backend(tmp_path: Path) -> MockBackend:
    return MockBackend(BackendContext(state_dir=tmp_path))


def plan(attempt: int = 1, **options: Any) -> Launch:
    return Launch(f"hostler-x-aaaa-{attempt}", "aaaa", attempt, (), options=options)


def test_counted_launch_failures_hold_over_attempts(backend: MockBackend) -> None:
    for attempt in (1, 2):
        with pytest.raises(LaunchRefused):
            backend.launch(plan(attempt, fail_launch=2))
        assert backend.adopt(f"hostler-x-aaaa-{attempt}") is None
    backend.launch(plan(3, fail_launch=2))
    with pytest.raises(LaunchRefused):
        backend.launch(Launch("hostler-x-bbbb-1", "bbbb", 1, (), options={"fail_launch": 1}))


def test_a_failed_launch_can_be_one_to_retry(backend: MockBackend) -> None:
    with pytest.raises(BackendUnavailable):
        backend.launch(plan(fail_launch=1, fail_retryable=True))
    assert backend.inspect([backend.launch(plan(fail_launch=1, fail_retryable=True))])[0].answers


@pytest.mark.parametrize("wish", ["always", True, 1.0])
def test_certain_launch_failures(backend: MockBackend, wish: object) -> None:
    for _ in range(3):
        with pytest.raises(LaunchRefused):
            backend.launch(plan(fail_launch=wish))


def test_counted_looks_and_stops_fail_and_then_work(backend: MockBackend) -> None:
    handle = backend.launch(plan(fail_inspect=2, fail_stop=1))
    assert [backend.inspect([handle])[0].liveness for _ in range(3)] == [
        Liveness.UNKNOWN,
        Liveness.UNKNOWN,
        Liveness.RUNNING,
    ]
    with pytest.raises(BackendError):
        backend.stop(handle, grace_s=0)
    assert backend.stop(handle, grace_s=0).liveness is Liveness.EXITED
    backend.close(handle)
    assert backend.adopt(handle.name) is None


def test_a_launch_slower_than_its_time_launches_nothing(backend: MockBackend) -> None:
    with pytest.raises(BackendUnavailable):
        backend.launch(plan(launch_delay_s=60), timeout_s=0.01)
    assert backend.adopt("hostler-x-aaaa-1") is None


def test_a_lost_handle_is_not_adopted(backend: MockBackend) -> None:
    backend.launch(plan(lose_handle="absent"))
    assert backend.adopt("hostler-x-aaaa-1") is None


def test_an_unreachable_backend_stops_nothing(backend: MockBackend) -> None:
    handle = backend.launch(plan(unreachable_after_s=0))
    with pytest.raises(BackendUnavailable):
        backend.stop(handle, grace_s=0, force=True)


def test_the_fingerprint_can_fail(backend: MockBackend) -> None:
    assert backend.fingerprint({}).healthy
    assert not backend.fingerprint({"fail_fingerprint": True}).healthy


def test_one_by_one_and_all_at_once_see_the_same(backend: MockBackend) -> None:
    handles = [
        backend.launch(Launch(f"hostler-x-{number}-1", f"{number}", 1, (), options={"exit_after_s": number % 2 * 99}))
        for number in range(200)
    ]
    for handle in handles[::5]:
        backend.stop(handle, grace_s=60)
    for handle in handles[::20]:
        backend.close(handle)
    assert backend.inspect(handles) == [backend.inspect([handle])[0] for handle in handles]
    assert len({seen.liveness for seen in backend.inspect(handles)}) == 3


def test_looking_at_thousands_is_cheap(backend: MockBackend) -> None:
    handles = [backend.launch(Launch(f"hostler-x-{number}-1", f"{number}", 1, ())) for number in range(2000)]
    begun = time.process_time()
    assert all(seen.answers for seen in backend.inspect(handles))
    assert time.process_time() - begun < 0.5
