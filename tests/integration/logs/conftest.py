"""Two hosts with a state dir each over one database: what lies on the one is read on the other."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.usecases import presence
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.keys import ensure_admin_key
from app.usecases.presence import NodeFacts
from workers.bootstrap import Runtime
from workers.log_copier import LogCopier


@dataclass
class Hosts:
    """``here`` reads; ``far`` has the files, and copies while ``copying``."""

    here: Context
    far: Context

    def replica(self) -> str:
        """A replica that runs on the far host, as its rows say; the test writes its log."""
        with self.here.database.read() as connection:
            key_id = connection.execute(text("SELECT id FROM keys")).scalar_one()
        asked = request_create(
            self.here, Actor(key_id, "admin", "admin"), {"server_mode": "replica_mock", "model_name": "m"}
        )
        self.attempt(asked.replica_id, 1)
        return asked.replica_id

    def attempt(self, replica_id: str, number: int) -> None:
        with self.here.database.begin() as connection:
            connection.execute(
                text("UPDATE attempts SET released_at = hostler_now() WHERE replica_id = :id"), {"id": replica_id}
            )
            connection.execute(
                text(
                    "INSERT INTO attempts (replica_id, number, name, pool, backend, node, launching_at)"
                    " VALUES (:id, :number, 'mark-' || :id || '-' || :number, 'local', 'process', 'far', now())"
                ),
                {"id": replica_id, "number": number},
            )
            connection.execute(
                text("UPDATE replicas SET attempt = :number WHERE id = :id"), {"id": replica_id, "number": number}
            )
        self.log(replica_id, number).parent.mkdir(parents=True)
        self.here.notify(f"replica:{replica_id}")

    def log(self, replica_id: str, number: int = 1) -> Path:
        return self.far.settings.state_dir / "attempts" / f"mark-{replica_id}-{number}" / "log"

    def write(self, replica_id: str, words: str | bytes, number: int = 1) -> None:
        with self.log(replica_id, number).open("ab") as file:
            file.write(words.encode() if isinstance(words, str) else words)

    def rotate(self, replica_id: str) -> None:
        log = self.log(replica_id)
        log.rename(log.with_name("log.1"))

    def end(self, replica_id: str) -> None:
        with self.here.database.begin() as connection:
            connection.execute(text("UPDATE attempts SET released_at = hostler_now() WHERE released_at IS NULL"))
            connection.execute(
                text("UPDATE replicas SET state = 'failed', reason = 'process_exited' WHERE id = :id"),
                {"id": replica_id},
            )
        self.here.notify(f"replica:{replica_id}")

    def count(self, table: str) -> int:
        with self.here.database.read() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    @contextmanager
    def copying(self, role: str = "agent") -> Iterator[Runtime]:
        """An agent of the far host at work; ``role`` tells two of them apart."""
        runtime, stop = Runtime(self.far.settings, role), threading.Event()
        thread = threading.Thread(target=LogCopier(runtime).run, args=(stop,))
        thread.start()
        try:
            yield runtime
        finally:
            stop.set()
            thread.join(20)
            runtime.ctx.close()
            assert not thread.is_alive()


@pytest.fixture
def hosts(settings: Settings, tmp_path: Path) -> Iterator[Hosts]:
    secrets = tmp_path / "secrets-of-far"
    secrets.mkdir(mode=0o700)
    with ExitStack() as stack:
        made = []
        for node in ("here", "far"):
            own = replace(settings, state_dir=tmp_path / node, node_name=node, secrets_dir=secrets, engine_key="e" * 40)
            own.state_dir.mkdir(mode=0o700)
            ctx = Context.open(own, pool_size=12)
            stack.callback(ctx.close)
            made.append(ctx)
        ensure_admin_key(settings, "k" * 32)
        hosts = Hosts(*made)
        facts = NodeFacts(cpus=1, memory_bytes=1, gpus=[], boot_id="x", version="x")
        presence.register_node(hosts.far, facts)
        yield hosts


@pytest.fixture
def replica(hosts: Hosts) -> str:
    return hosts.replica()


@pytest.fixture
def shift_clock(hosts: Hosts) -> Callable[[float], None]:
    """Move the database's clock so many seconds on."""

    def shift(seconds: float) -> None:
        with hosts.here.database.begin() as connection:
            connection.execute(
                text("UPDATE clock SET shift = shift + make_interval(secs => :seconds)"), {"seconds": seconds}
            )

    return shift
