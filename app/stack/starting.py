"""The steps of a start that wait: for sockets, the database, migrations, and /health."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psycopg

from app.errors import HostlerError
from app.settings import Settings
from app.stack.api import Api
from app.stack.errors import PartFailed
from app.stack.layout import POSTGRES_SOCKET, Layout
from app.stack.ports import url_of
from app.stack.roles import POSTGRES, REDIS
from app.stack.secrets import admin_key, shared_keys
from app.stack.supervisor import Program, Supervisor
from app.stack.urls import broker_url, database_url, embeds_postgres, embeds_redis

#: What ``must_share`` calls ``HOSTLER_NAMESPACE``.
NAMESPACE = "namespace"

_LOOK_S = 0.05
_TAIL_BYTES = 3000
#: A program that still restarts this long after it was first seen failing will not come up by itself.
_FAILING_S = 5.0
#: How long a database that is not ours may take.
_GIVEN_S = 10.0
#: /health answers; how much longer to wait until it finds nothing wrong.
_HEALTHY_S = 15.0


def wait_for_parts(settings: Settings, deadline: float) -> list[tuple[str, str]]:
    """Wait for the sockets of the embedded parts; (name, where it listens) of each."""
    layout = Layout(settings.state_dir)
    parts = []
    if embeds_postgres(settings):
        parts.append((POSTGRES, layout.postgres_sockets / POSTGRES_SOCKET))
    if embeds_redis(settings):
        parts.append((REDIS, layout.redis_socket))
    for name, path in parts:
        _wait(settings, deadline, name, path.is_socket)
    return [(name, str(path)) for name, path in parts]


def wait_for_database(settings: Settings, deadline: float) -> None:
    """Wait until the database lets us in. Raises PartFailed with its own words."""
    url = database_url(settings).replace("postgresql+psycopg://", "postgresql://", 1)
    if not embeds_postgres(settings):
        # not ours to start: what is wrong with it will not mend while we wait
        deadline = min(deadline, time.monotonic() + _GIVEN_S)
    said = ""

    def answers() -> bool:
        nonlocal said
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except (psycopg.OperationalError, psycopg.ProgrammingError) as error:
            # the latter for an address that is none
            said = str(error).strip()
            return False
        return True

    if embeds_postgres(settings):
        _wait(settings, deadline, POSTGRES, answers)
        return
    while not answers():
        if time.monotonic() > deadline:
            raise PartFailed(f"the database does not let us in; check HOSTLER_DATABASE_URL; it said: {said}")
        time.sleep(0.5)


def migrate(settings: Settings) -> str:
    """Bring the schema up to date and make the admin key known; what is to be said of that key. Raises PartFailed."""
    # they load SQLAlchemy and Alembic, which only a start needs
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    from app.db.migrate import upgrade
    from app.usecases.keys import KeyEnded, ensure_admin_key

    try:
        upgrade(database_url(settings))
        changed = _mark_keys(settings)
        key = admin_key(settings)
        if key:
            ensure_admin_key(settings, key, alone=bool(settings.api_key))
    except KeyEnded as error:
        if settings.api_key:
            raise PartFailed(f"HOSTLER_API_KEY: {error}") from error
        # another admin key was there when this one was revoked
        return f"the admin key of {settings.state_dir} was revoked; give the command line another by --key-file"
    except (CommandError, SQLAlchemyError) as error:
        raise PartFailed(f"the database could not be migrated: {error}; see `hostler doctor`") from error
    except HostlerError as error:
        raise PartFailed(str(error)) from error
    return changed


def _mark_keys(settings: Settings) -> str:
    """Let hosts that join tell whether they have the same; what is to be said where they were others."""
    from app.db.engine import Database
    from app.usecases import key_marks

    database = Database(database_url(settings), pool_size=1)
    try:
        shared = must_share(settings)
        changed = key_marks.differing(database, shared)
        key_marks.record(database, shared)
    finally:
        database.close()
    if not changed:
        return ""
    return f"{' and '.join(changed)} of this stack changed: its other hosts need the new one (docs/other-hosts.md)"


def must_share(settings: Settings) -> dict[str, str]:
    """What every host of the stack must have alike, by name: the keys, and the namespace of names and queues."""
    from app.db.identity import namespace

    return {**shared_keys(settings), NAMESPACE: namespace(settings)}


def check_broker(settings: Settings) -> None:
    """Raises PartFailed with its own words when the broker does not let us in."""
    from app.doorbell.reaching import BrokerAway, reach

    try:
        reach(broker_url(settings))
    except BrokerAway as error:
        raise PartFailed(f"the broker does not let us in; check HOSTLER_BROKER_URL; it said: {error}") from error


def wait_for_programs(settings: Settings, deadline: float, at_work: Callable[[list[Program]], bool]) -> list[Program]:
    """Wait until every program runs and ``at_work`` says so. Raises PartFailed with the end of a log."""
    supervisor = Supervisor(settings)
    failing: dict[str, float] = {}
    while True:
        programs = supervisor.programs()
        now = time.monotonic()
        if all(program.state == "RUNNING" for program in programs) and at_work(programs):
            return programs
        _check_failing(settings, programs, failing, now)
        if now > deadline:
            late = [program.name for program in programs if program.state != "RUNNING"] or ["agent"]
            raise PartFailed(_failure(settings, late[0], "it was not at work in time"))
        time.sleep(_LOOK_S)


def wait_for_health(settings: Settings, deadline: float) -> tuple[list[Program], list[str]]:
    """Wait until every program runs and /health is 200 and says *healthy*: (programs, what /health still finds wrong).

    What does not mend in a while is not waited for. Raises PartFailed with the end of the log that tells why.
    """
    api, supervisor = Api(url_of(settings), certificate=settings.tls_certificate), Supervisor(settings)
    failing: dict[str, float] = {}
    answered_at = 0.0
    while True:
        programs = supervisor.programs()
        status, body = api.health()
        now = time.monotonic()
        answered_at = answered_at or (now if status == 200 else 0.0)
        # heartbeats and the first sweep come a moment after the start
        settled = body.get("status") == "healthy" or now - answered_at > _HEALTHY_S or now > deadline
        if answered_at and settled and all(program.state == "RUNNING" for program in programs):
            return programs, body.get("problems") or []
        _check_failing(settings, programs, failing, now)
        if now > deadline:
            late = [program.name for program in programs if program.state != "RUNNING"] or ["web"]
            raise PartFailed(_failure(settings, late[0], "it was not ready in time"))
        time.sleep(_LOOK_S)


def _check_failing(settings: Settings, programs: list[Program], failing: dict[str, float], now: float) -> None:
    """``failing`` keeps since when each of them has been failing. Raises PartFailed for one that will not come up."""
    for program in programs:
        if program.state in ("BACKOFF", "FATAL", "EXITED"):
            since = failing.setdefault(program.name, now)
            if program.state == "FATAL" or now - since > _FAILING_S:
                raise PartFailed(_failure(settings, program.name, program.error))
        elif program.state == "RUNNING":
            failing.pop(program.name, None)


def _wait(settings: Settings, deadline: float, name: str, condition: Callable[[], bool]) -> None:
    supervisor = Supervisor(settings)
    failing_since: float | None = None
    while not condition():
        now = time.monotonic()
        program = next((one for one in supervisor.programs() if one.name == name), None)
        if program is not None and program.state in ("BACKOFF", "FATAL", "EXITED"):
            failing_since = failing_since or now
            if program.state == "FATAL" or now - failing_since > _FAILING_S:
                raise PartFailed(_failure(settings, name, program.error))
        if now > deadline:
            raise PartFailed(_failure(settings, name, "it was not ready in time"))
        time.sleep(_LOOK_S)


def _failure(settings: Settings, name: str, why: str) -> str:
    path = Layout(settings.state_dir).logs / f"{name}.log"
    return f"{name} did not start: {why}\nthe end of {path}:\n{_tail(path)}"


def _tail(path: os.PathLike[str]) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()[-20:]
    except OSError as error:
        return f"  ({error.strerror})"
    return "\n".join(f"  | {line}" for line in lines)
