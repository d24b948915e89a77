"""``hostler doctor``: what is wrong with a stack, and the command that helps."""

from __future__ import annotations

import os
import resource
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg

from app.db.engine import Database
from app.doorbell.reaching import BrokerAway, reach
from app.errors import Unavailable
from app.haproxy.runtime import HaproxyAway, Session
from app.haproxy.shown import number, parse_figures
from app.settings import Settings
from app.stack.api import Api, ApiSilent
from app.stack.errors import StackError
from app.stack.findings import FAIL, OK, WARN, Finding, one_line, some
from app.stack.layout import Layout
from app.stack.pool_checks import pool_checks, tunnel_check
from app.stack.prepare import NEW_BYTES, OLD_BYTES
from app.stack.processes import control_plane
from app.stack.record import Record, read_record, supervisor_of
from app.stack.roles import WORKER_HOST, roles_of
from app.stack.secrets import admin_key
from app.stack.starting import must_share
from app.stack.supervisor import Supervisor
from app.stack.urls import broker_url, database_url, embeds_postgres
from app.usecases import key_marks
from app.usecases.health import CHECKS, look, problems

#: A worker that has not been heard of for this long is not there.
_SILENT_S = 20
#: Deadlines are the database's time; a host further off shows wrong ages.
_CLOCK_S = 2.0
#: A door for fewer than this cuts off registrations and streams that the API would hold.
FEW_CONNECTIONS = 5000
_FULL = 0.9

_QUEUES = """
SELECT q FROM (SELECT unnest(ARRAY['pool.' || name, 'pool.' || name || '.control']) AS q FROM pools) queues
WHERE q NOT IN (SELECT unnest(queues) FROM workers WHERE heartbeat_at > hostler_now() - make_interval(secs => %s))
ORDER BY q
"""


def doctor(settings: Settings) -> list[Finding]:
    """Every check in order; those that need the database say so when it is down."""
    record = read_record(settings)
    # the API and the gateway are elsewhere
    only_engines = record is not None and record.kind == WORKER_HOST
    found = [_stack(settings, record), *([] if only_engines else [_api(settings, record)])]
    try:
        with psycopg.connect(_plain(settings), connect_timeout=5, autocommit=True) as connection:
            found.append(Finding("database", OK, _version(connection)))
            for name, check in (("migrations", _migrations), ("queues", _queues), ("clock", _clock)):
                found.append(_guarded(name, check, settings, connection))
        migrated = all(one.result != FAIL for one in found if one.check == "migrations")
        found += _at_work(settings, migrated=migrated)
        found += [*pool_checks(settings, record), *tunnel_check(settings)] if migrated else []
    except (psycopg.Error, StackError) as error:
        found.append(Finding("database", FAIL, one_line(error), _database_fix(settings)))
        found += [Finding(name, FAIL, "not known: no database", _database_fix(settings)) for name in _NEEDS_DATABASE]
    found += [_keys(settings)] if only_engines else [_recipes(settings, record), _gateway(settings)]
    found += [_broker(settings), _disk(settings)]
    return [*found, _permissions(settings), _run_as(record)]


_NEEDS_DATABASE = ("migrations", "queues", "clock", *CHECKS, "places", "tunnels")
_Check = Callable[[Settings, "psycopg.Connection[tuple[object, ...]]"], Finding]


def _stack(settings: Settings, record: Record | None) -> Finding:
    again = f"hostler up -d --state-dir {settings.state_dir}"
    if record is not None and record.kind == WORKER_HOST:
        again = f"hostler worker -d --state-dir {settings.state_dir}"
    if record is None:
        return Finding("processes", FAIL, f"no stack is up in {settings.state_dir}", again)
    if supervisor_of(record) is None:
        left = len(control_plane(Layout(settings.state_dir)))
        return Finding("processes", FAIL, f"supervisor is gone; {left} of its processes are left", again)
    try:
        bad = [one for one in Supervisor(settings).programs() if one.state not in ("RUNNING", "STARTING")]
    except StackError as error:
        return Finding("processes", FAIL, str(error), f"hostler down --keep-replicas; {again}")
    if bad:
        states = ", ".join(f"{one.name} is {one.state.lower()}" for one in bad)
        log = Layout(settings.state_dir).logs / f"{bad[0].name}.log"
        return Finding("processes", FAIL, states, f"tail {log}")
    where = record.url or f"node {settings.node_name}"
    return Finding("processes", OK, f"supervisor and {len(roles_of(record.kind))} roles run; {where}")


def _api(settings: Settings, record: Record | None) -> Finding:
    url = record.url if record is not None else ""
    answered, body = Api(url, certificate=record.certificate).health(5) if record is not None else (0, {})
    if answered == 200 and body.get("problems"):
        # those that the database can tell are told below, each with what to type
        return Finding("api", WARN, "; ".join(body["problems"]), "see below")
    if answered == 200:
        return Finding("api", OK, f"{url}/health answers: {body.get('status')}")
    detail = f"{url}/health answered {answered}" if answered else "the API does not answer"
    return Finding("api", FAIL, detail, f"tail {Layout(settings.state_dir).logs / 'web.log'}")


def _recipes(settings: Settings, record: Record | None) -> Finding:
    """Asked of the API: the folder is in its settings, and the files must be as it may read them."""
    try:
        if record is None:
            raise ApiSilent("no stack is up")
        key = admin_key(settings) or ""
        told = Api(record.url, certificate=record.certificate, key=key).recipe_problems()
    except StackError as error:
        return Finding("recipes", FAIL, f"not known: {one_line(error)}", "see api")
    if told:
        return Finding("recipes", WARN, some(told), "hostler recipe list")
    return Finding("recipes", OK, "every recipe's file can be served")


def _guarded(
    name: str, check: _Check, settings: Settings, connection: psycopg.Connection[tuple[object, ...]]
) -> Finding:
    try:
        return check(settings, connection)
    except psycopg.Error as error:
        return Finding(name, FAIL, one_line(error), "hostler down --keep-replicas; hostler up -d")


def _version(connection: psycopg.Connection[tuple[object, ...]]) -> str:
    number = connection.info.server_version
    return f"Postgres {number // 10000}.{number % 10000}"


def _migrations(settings: Settings, _connection: psycopg.Connection[tuple[object, ...]]) -> Finding:
    from app.db.migrate import standing

    found = standing(database_url(settings))
    if found.behind:
        return Finding("migrations", FAIL, str(found), "hostler down --keep-replicas; hostler up -d")
    if found.ahead:
        return Finding("migrations", WARN, str(found), "finish the upgrade: install that version on this host too")
    return Finding("migrations", OK, f"at {found.current}")


def _queues(settings: Settings, connection: psycopg.Connection[tuple[object, ...]]) -> Finding:
    alone = [str(row[0]) for row in connection.execute(_QUEUES, (_SILENT_S,))]
    if not alone:
        return Finding("queues", OK, "every pool's queues have a worker")
    fix = f"hostler status; tail {Layout(settings.state_dir).logs / 'worker.log'}"
    return Finding("queues", FAIL, f"no worker serves {some(alone)}", fix)


def _clock(_settings: Settings, connection: psycopg.Connection[tuple[object, ...]]) -> Finding:
    before = time.time()
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp()), extract(epoch FROM hostler_now() - clock_timestamp())"
    ).fetchone()
    assert row is not None
    off_s = float(str(row[0])) - (before + time.time()) / 2
    moved_s = float(str(row[1]))
    if abs(moved_s) > 1:
        fix = "start the database without the moved clock of a test"
        return Finding("clock", FAIL, f"hostler_now() is {moved_s:+.1f} s from the database's clock", fix)
    if abs(off_s) > _CLOCK_S:
        return Finding("clock", FAIL, f"the database is {off_s:+.1f} s from this host", "timedatectl set-ntp true")
    return Finding("clock", OK, f"the database is {off_s * 1000:+.0f} ms from this host")


def _at_work(settings: Settings, *, migrated: bool) -> list[Finding]:
    """What `/health` would say, asked of the database itself, for the API may be what is down."""
    if not migrated:
        return [Finding(check, FAIL, "not known: the database is not migrated", "see migrations") for check in CHECKS]
    database = Database(database_url(settings), pool_size=1)
    try:
        wrong = problems(look(database), settings.sweep_interval_s)
    except Unavailable as error:
        return [Finding(check, FAIL, error.detail, _database_fix(settings)) for check in CHECKS]
    finally:
        database.close()
    found = []
    for check, well in CHECKS.items():
        ours = [one for one in wrong if one.check == check]
        fixes = "; ".join(dict.fromkeys(one.fix for one in ours))
        detail = " ".join(one.text for one in ours)
        found.append(Finding(check, WARN, detail, fixes) if ours else Finding(check, OK, well))
    return found


def _gateway(settings: Settings) -> Finding:
    """Whether HAProxy answers, and how much fits through it: each connection takes two of its descriptors."""
    layout = Layout(settings.state_dir)
    try:
        with Session(layout.haproxy_socket) as session:
            shown = dict(line.split(": ", 1) for line in session.ask("show info").splitlines() if ": " in line)
            [door] = parse_figures(session.ask("show stat door 1 -1"))
    except HaproxyAway as error:
        return Finding("gateway", FAIL, f"HAProxy does not answer: {error}", f"tail {layout.logs / 'gateway.log'}")
    most, now = number(door["slim"]), number(door["scur"])
    fits = f"HAProxy {shown['Version']} holds {most} connections or streams at once, {now} now"
    if most < FEW_CONNECTIONS:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        fix = "set HOSTLER_GATEWAY_CONNECTIONS" if settings.gateway_connections else _more_files(hard)
        return Finding("gateway", WARN, f"{fits}: {shown['Ulimit-n']} open files are allowed", fix)
    if now > _FULL * most:
        return Finding("gateway", WARN, f"{fits}: nearly all", "raise `ulimit -n`, or start another gateway")
    return Finding("gateway", OK, fits)


def _more_files(hard: int) -> str:
    return f"raise `ulimit -n` (the hard limit here is {hard}; nofile in limits.conf, LimitNOFILE= in systemd)"


def _keys(settings: Settings) -> Finding:
    """Whether this host has the keys that the stack has now."""
    database = Database(database_url(settings), pool_size=1)
    try:
        differing = key_marks.differing(database, must_share(settings))
    except Unavailable as error:
        return Finding("keys", FAIL, f"not known: {error.detail}", _database_fix(settings))
    finally:
        database.close()
    if differing:
        fix = "hostler down --keep-replicas; copy them from the stack's own host; hostler worker -d"
        return Finding("keys", FAIL, f"{' and '.join(differing)} here is not the stack's", fix)
    return Finding("keys", OK, "this host has the stack's keys")


def _broker(settings: Settings) -> Finding:
    try:
        return Finding("broker", OK, f"{reach(broker_url(settings))} answers")
    except BrokerAway as error:
        again = f"hostler up -d --state-dir {settings.state_dir}"
        return Finding("broker", FAIL, str(error), "check HOSTLER_BROKER_URL" if settings.broker_url else again)


def _disk(settings: Settings) -> Finding:
    """Room for logs, records of attempts and the embedded database, which may lie elsewhere."""
    layout = Layout(settings.state_dir)
    places = [place for place in (layout.state_dir, layout.postgres) if place.exists()]
    if not places:
        return Finding("disk", OK, "there is no state dir yet")
    free, place = min((shutil.disk_usage(place).free, place) for place in places)
    result = FAIL if free < OLD_BYTES else WARN if free < NEW_BYTES else OK
    return Finding("disk", result, f"{free >> 20} MB are free in {place}", "" if result == OK else f"du -sh {place}/*")


def _permissions(settings: Settings) -> Finding:
    leaks = list(leaking(settings.state_dir))
    if not settings.state_dir.is_dir():
        return Finding("permissions", OK, "there is no state dir yet")
    if leaks:
        fix = f"chmod -R go-rwx {settings.state_dir}"
        return Finding("permissions", FAIL, f"others may open {some([str(path) for path in leaks])}", fix)
    return Finding("permissions", OK, f"only its owner may open {settings.state_dir}")


def leaking(state_dir: Path) -> Iterator[Path]:
    """Paths of the state dir, and of its folders elsewhere, that group or others may read, write or enter.

    Recipes are no secrets: those only nobody else may write. What engines write into folders that nobody else may
    enter is not looked at: those in containers have the umask of their image.
    """
    layout = Layout(state_dir)
    for top in {state_dir, layout.run, layout.postgres}:
        for folder, folders, files in os.walk(top):
            if _is_engines(Path(folder), layout) and _is_closed(folder):
                folders.clear()
                continue
            closed = 0o022 if Path(folder).is_relative_to(layout.recipes) else 0o077
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                try:
                    mode = os.lstat(path).st_mode
                except FileNotFoundError:
                    continue
                if not stat.S_ISLNK(mode) and mode & closed:
                    yield path


def _is_engines(folder: Path, layout: Layout) -> bool:
    """Whether engines write into it: a store's data, the cache, or what a container sees of its attempt's folder."""
    kept = folder.parent == layout.data or folder == layout.state_dir / "cache"
    return kept or folder.parent.parent == layout.containers


def _is_closed(folder: str) -> bool:
    try:
        return not os.lstat(folder).st_mode & 0o077
    except FileNotFoundError:
        return True


def _run_as(record: Record | None) -> Finding:
    if record is None:
        return Finding("user", OK, "nothing runs")
    if record.note:
        again = "worker" if record.kind == WORKER_HOST else "up"
        fix = f"hostler {again} --run-as USER, for a user who can reach both"
        return Finding("user", WARN, f"all but Postgres ({record.postgres_user}) runs as root: {record.note}", fix)
    return Finding("user", OK, f"runs as {record.user}, Postgres as {record.postgres_user}")


def _plain(settings: Settings) -> str:
    return database_url(settings).replace("postgresql+psycopg://", "postgresql://", 1)


def _database_fix(settings: Settings) -> str:
    if embeds_postgres(settings):
        return f"hostler up -d --state-dir {settings.state_dir}"
    return "check HOSTLER_DATABASE_URL"
