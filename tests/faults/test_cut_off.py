"""The database drops every connection, the broker stops answering: what can be done without them is done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.stepper import POOL
from tests.faults.test_bells import broker
from tests.support.crew import Crew


def test_every_connection_to_the_database_is_cut_in_the_middle(crew: Crew) -> None:
    pids = {role: process.pid for role, process in crew.processes.items()}
    serving = crew.create(pool=POOL)
    crew.await_ready(serving)
    starting = crew.create(pool=POOL, mock={"startup_s": 1})
    crew.await_state(starting, "waiting_for_ready")
    launching = [crew.create(pool="silent", options={"launch_delay_s": 1}) for _ in range(2)]
    for _ in range(3):
        crew.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        time.sleep(0.2)
    for replica in (starting, *launching):
        crew.await_ready(replica)
    os.kill(crew.engines(serving)[0], signal.SIGKILL)
    crew.await_state(serving, "failed")
    crew.end(starting, *launching)
    assert {role: process.pid for role, process in crew.processes.items() if process.poll() is None} == pids


def test_a_broker_that_hangs_holds_up_no_end_and_no_request(crew: Crew) -> None:
    """Deaths, stops and deadlines are the agent's and hang on no bell; a create is accepted and launched later."""
    serving, dies = crew.create(pool=POOL), crew.create(pool=POOL)
    for replica in (serving, dies):
        crew.await_ready(replica)
    crew.change("UPDATE pools SET state = 'draining' WHERE name = 'silent'")
    with _hanging_broker(crew):
        begun = time.monotonic()
        late = crew.create(pool="silent", timeouts={"queue_timeout_s": 1})
        accepted = crew.create(pool=POOL)
        crew.stop_replica(serving)
        os.kill(crew.engines(dies)[0], signal.SIGKILL)
        assert time.monotonic() - begun < 2, "nobody waits for the bell"
        crew.await_released(serving, timeout_s=15)
        crew.await_state(dies, "failed", timeout_s=15)
        assert crew.await_released(late, timeout_s=15).reason == "queue_timeout"
    crew.change("UPDATE pools SET state = 'active' WHERE name = 'silent'")
    crew.await_ready(accepted, timeout_s=60)
    crew.end(accepted)


def test_the_parent_of_the_workers_is_killed_alone(crew: Crew) -> None:
    """As the OOM killer does it: its children must not go on without it."""
    parent = crew.processes["worker"].pid
    children = _session(parent) - {parent}
    assert children
    os.kill(parent, signal.SIGKILL)
    crew.processes.pop("worker").wait()
    crew.await_that(lambda: not _session(parent), "the orphaned children to end")
    crew.start("worker")
    replica = crew.create(pool=POOL)
    crew.await_ready(replica)
    crew.await_heartbeat("worker")
    crew.end(replica)


def test_whatever_is_in_the_broker_carries_the_stacks_prefix(crew: Crew) -> None:
    """Pitfall 29: another stack on the same broker must not hear our bells."""
    replica = crew.create(pool=POOL)
    crew.await_ready(replica)
    crew.end(replica)
    client = broker(crew)
    names = {key.decode() for key in client.keys("*")}
    client.close()
    ours = {name for name in names if name.startswith(f"hostler:{crew.ctx.namespace}:")}
    assert ours
    assert {name for name in names - ours if not name.startswith("hostler:")} == set()


def _session(leader: int) -> set[int]:
    """Living members of the session that ``leader`` began."""
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == leader and words[0] not in "ZX":
            found.add(int(entry))
    return found


@contextmanager
def _hanging_broker(crew: Crew) -> Iterator[None]:
    client = broker(crew)
    pid = int(client.info()["process_id"])
    client.close()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
