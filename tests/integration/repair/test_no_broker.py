"""No beat, and then no Redis either: everything still happens, slower."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import redis

from app.settings import Settings
from app.stack.redis import redis_binary, redis_env
from app.usecases.checks import request_health
from tests.support.crew import Crew, crew_settings, running_crew
from tests.support.embedded import fresh_database, wait_until
from tests.support.freezing import freeze

#: Redis may take its time to be missed: a canary goes round every ten seconds.
SLOW_S = 60.0


@dataclass
class Broker:
    """A Redis that can be killed."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis+socket://{self.folder}/r.sock"

    def start(self) -> None:
        argv = [str(redis_binary()), "--port", "0", "--unixsocket", f"{self.folder}/r.sock", "--save", ""]
        self.process = subprocess.Popen(
            [*argv, "--dir", str(self.folder)], env=redis_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until(self._answers, 20, "Redis")

    def end(self, number: int) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        client = redis.Redis(unix_socket_path=f"{self.folder}/r.sock")
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
        finally:
            client.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("r"))
    broker.start()
    yield broker
    broker.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def beatless(
    broker: Broker, parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Crew]:
    folder = tmp_path_factory.mktemp("beatless")
    with fresh_database(parts, migrated) as url:
        settings = replace(crew_settings(parts, url, folder, lease_s=3.0), broker_url=broker.url)
        with running_crew(settings, folder, roles=("worker", "worker-control", "agent")) as crew:
            yield crew


def test_without_beat_lost_bells_are_still_made_good(beatless: Crew) -> None:
    replica = beatless.create()
    beatless.await_ready(replica)
    sweeps = len(beatless.rows("SELECT 1 FROM sweeps"))
    beatless.await_that(lambda: len(beatless.rows("SELECT 1 FROM sweeps")) > sweeps + 1, "sweeps without beat")
    sweepers = beatless.rows("SELECT DISTINCT worker FROM sweeps WHERE name = 'repair'")
    assert all("/agent/" in row.worker for row in sweepers), sweepers
    beatless.end(replica)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_without_broker_work_converges_and_bells_work_again_when_it_is_back(
    beatless: Crew, broker: Broker, how: str
) -> None:
    crew = beatless
    served, stopped = crew.create(), crew.create()
    crew.await_ready(served)
    crew.await_ready(stopped)
    if how == "killed":
        broker.end(signal.SIGKILL)
    else:
        assert broker.process is not None
        freeze(broker.process.pid)
    created = [crew.create() for _ in range(3)]
    stop = crew.stop_replica(stopped)
    health = request_health(crew.ctx, crew.actor, served)
    crew.await_released(stopped, timeout_s=SLOW_S)
    for replica in created:
        crew.await_ready(replica, timeout_s=SLOW_S)
        assert crew.starts(replica) == 1
    assert crew.await_task(stop.task_id, SLOW_S).state == "succeeded"
    assert crew.await_task(health.task_id, SLOW_S).result["healthy"] is True
    back = crew.log("agent", 1_000_000).count("the broker is back")
    if how == "killed":
        broker.start()
    else:
        broker.end(signal.SIGKILL)
        broker.start()
    crew.await_that(lambda: crew.log("agent", 1_000_000).count("the broker is back") > back, "its return", SLOW_S)
    _supervise(crew)
    later = crew.create()
    crew.await_ready(later, timeout_s=SLOW_S)
    assert "/worker/" in crew.tasks(later)[0].claimed_by, "the worker does its own work again"
    crew.end(served, later, *created)
    assert crew.starts(served) == 1


def _supervise(crew: Crew) -> None:
    """As the stack's supervisor does: Celery's consumer does not survive every loss of its broker (kombu's
    ``AttributeError`` in ``basic_ack``)."""
    for role, process in list(crew.processes.items()):
        if process.poll() is not None:
            crew.start(role)
            crew.await_heartbeat(role)
