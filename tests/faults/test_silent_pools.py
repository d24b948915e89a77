"""Trap 13: a pool loses all heartbeats at once: no mass teardown, an event instead."""

from __future__ import annotations

import pytest

from tests.support.crew import Crew

COUNT = 8


@pytest.mark.parametrize("lost", ["absent", "unknown"])
def test_a_pool_that_falls_silent_at_once_is_suspect_and_not_torn_down(crew: Crew, lost: str) -> None:
    """Nothing is left of the handles, all together; the backend itself says that it does not answer either."""
    before = _suspected(crew)
    replicas = [crew.create(pool="silent") for _ in range(COUNT)]
    for replica in replicas:
        crew.await_ready(replica)
    crew.await_that(lambda: all(crew.replica(one).last_health for one in replicas), "each to be looked at once")
    _lose(crew, replicas, {"lose_handle": lost, "fail_fingerprint": True})
    crew.await_that(lambda: _suspected(crew) == before + 1, "a pool_suspect event")
    # long enough for a hasty judge: the suspicion itself lasts two rounds
    heard = {one: crew.replica(one).last_health["at"] for one in replicas}
    looks = 3
    for _ in range(looks):
        seen = crew.rows("SELECT max(next_check_at) FROM replicas WHERE id = ANY(:ids)", ids=replicas)[0][0]
        crew.await_that(
            lambda seen=seen: (
                crew.rows("SELECT min(next_check_at) FROM replicas WHERE id = ANY(:ids)", ids=replicas)[0][0] > seen
            ),
            "another round of looks",
        )
    states = {crew.replica(one).state for one in replicas}
    assert states <= {"ready", "unreachable"}, [crew.story(one) for one in replicas]
    assert all(list(crew.leases(one)) == ["slot"] for one in replicas)
    assert _suspected(crew) == before + 1, "told once"
    assert heard
    _lose(crew, replicas, {})
    for replica in replicas:
        crew.await_ready(replica)
    crew.end(*replicas)


def test_one_that_falls_silent_alone_is_judged_alone(crew: Crew) -> None:
    before = _suspected(crew)
    replicas = [crew.create(pool="silent") for _ in range(COUNT)]
    for replica in replicas:
        crew.await_ready(replica)
    _lose(crew, replicas[:1], {"lose_handle": "absent"})
    row = crew.await_state(replicas[0], "failed")
    assert row.reason == "backend_error"
    assert _suspected(crew) == before
    assert {crew.replica(one).state for one in replicas[1:]} == {"ready"}
    crew.end(*replicas)


def test_a_silence_that_lasts_is_believed_when_the_backend_answers(crew: Crew) -> None:
    replicas = [crew.create(pool="silent") for _ in range(4)]
    for replica in replicas:
        crew.await_ready(replica)
    _lose(crew, replicas, {"lose_handle": "absent"})
    for replica in replicas:
        assert crew.await_state(replica, "failed").reason == "backend_error"
        crew.await_released(replica)


def _suspected(crew: Crew) -> int:
    return len(crew.rows("SELECT 1 FROM events WHERE kind = 'pool_suspect' AND pool = 'silent'"))


def _lose(crew: Crew, replicas: list[str], options: dict[str, object]) -> None:
    """Change what the mock is told of running attempts, in one instant for the watch."""
    import json

    crew.change(
        "WITH a AS (UPDATE attempts SET backend_ref = jsonb_set(backend_ref, '{ref,options}', CAST(:options AS jsonb))"
        " WHERE replica_id = ANY(:ids))"
        " UPDATE replicas SET spec = jsonb_set(spec, '{resolved,backend_options}', CAST(:options AS jsonb))"
        " WHERE id = ANY(:ids)",
        options=json.dumps(options),
        ids=replicas,
    )
