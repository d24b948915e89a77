"""A stack over several hosts: database, broker and control plane on one, workers and engines on others."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import redis

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.postgres import postgres_argv, postgres_env
from app.stack.prepare import make_state_dir, prepare
from app.stack.redis import redis_binary, redis_env
from app.stack.secrets import SHARED, postgres_password
from tests.support.bound import bound
from tests.support.embedded import end_parts, wait_until
from tests.support.netns import Host
from tests.support.stacks import Stack, stack

_UP_S = 60


class HostStack(Stack):
    """What one host has of a stack, and the commands typed there."""

    host: Host

    def argv(self, *arguments: str) -> list[str]:
        return self.host.argv(*super().argv(*arguments))

    def call(self, method: str, path: str, body: Any = None, expect: int | tuple[int, ...] = 200) -> Any:
        return self.host.do(lambda: super(HostStack, self).call(method, path, body, expect))

    def take_keys_of(self, other: Stack) -> None:
        """The keys that all hosts share, copied as an operator would."""
        self.layout.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in SHARED:
            shutil.copyfile(other.layout.secrets / name, self.layout.secrets / name)
            (self.layout.secrets / name).chmod(0o600)


@contextmanager
def on(host: Host, state_dir: Path, **environ: str) -> Iterator[HostStack]:
    """``host``'s part of a stack, not up yet; at the end all of it is ended by pid and removed."""
    with stack(state_dir, sys.executable, HostStack, **environ) as made:
        assert isinstance(made, HostStack)
        made.host = host
        yield made


@contextmanager
def parts_on(host: Host, folder: Path) -> Iterator[dict[str, str]]:
    """Postgres and Redis that listen on the host's first address; the environment that names them, with passwords."""
    settings = Settings.load({}, state_dir=folder / "parts")
    make_state_dir(settings.state_dir)
    layout = Layout(settings.state_dir)
    chosen = prepare(settings, fast=True)
    with open(layout.postgres_data / "pg_hba.conf", "a") as file:
        file.write("host all all all scram-sha-256\n")
    word = secrets.token_hex(12)
    postgres = [*postgres_argv(settings, fast=True), "-h", host.address]
    broker = [str(redis_binary()), "-"]
    config = f"bind {host.address}\nport 6379\nrequirepass {word}\ndir {layout.redis}\n"
    config += "maxmemory-policy noeviction\nsave ''\n"
    running: list[subprocess.Popen[bytes]] = []
    try:
        for argv, env, account, said in (
            (postgres, postgres_env(), chosen.postgres, b""),
            (broker, redis_env(), chosen.rest, config.encode()),
        ):
            with open(layout.logs / f"{Path(argv[0]).name}.log", "ab") as log:
                # nsenter needs root, its program must not have it
                drop = [] if account.is_caller else ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}"]
                drop += ["--clear-groups", "--"] if drop else []
                process = subprocess.Popen(
                    [*bound("INT"), *host.argv(*drop, *argv)],
                    env=env, cwd="/", stdin=subprocess.PIPE, stdout=log, stderr=log,
                )  # fmt: skip
                assert process.stdin is not None
                process.stdin.write(said)
                process.stdin.close()
                running.append(process)
        url = f"postgresql://hostler:{postgres_password(settings)}@{host.address}:5432/hostler"
        client = redis.Redis(host=host.address, password=word)
        wait_until(lambda: host.do(lambda: _answers(url, client)), _UP_S, f"database and broker; see {layout.logs}")
        yield {"HOSTLER_DATABASE_URL": url, "HOSTLER_BROKER_URL": f"redis://:{word}@{host.address}:6379/0"}
    finally:
        end_parts(running, layout)


def _answers(url: str, client: redis.Redis) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
        return bool(client.ping())
    except (psycopg.OperationalError, redis.ConnectionError):
        return False
    finally:
        client.close()
