"""``hostler worker``: a host that only runs engines, for a stack whose other parts are elsewhere."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import replace

from app.db.migrate import standing
from app.settings import BadSetting, Settings, pools_served
from app.stack import secrets
from app.stack.address import address_towards, with_node_address
from app.stack.environment import settings_environment
from app.stack.errors import BadState, PartFailed
from app.stack.layout import Layout
from app.stack.lock import locked
from app.stack.ports import is_loopback
from app.stack.prepare import make_state_dir, prepare
from app.stack.processes import boot_id
from app.stack.roles import WORKER_HOST
from app.stack.secrets import SHARED, shared_keys
from app.stack.started import Say, Started, end_leftovers, running, supervised
from app.stack.starting import NAMESPACE, check_broker, must_share, wait_for_database, wait_for_programs
from app.stack.supervisor import Program, Supervisor
from app.stack.urls import database_url, embeds_postgres, embeds_redis
from app.usecases import key_marks, presence
from app.usecases.context import Context
from app.usecases.health import ROLES
from app.usecases.nodes import SILENT_S
from app.usecases.plans import near

#: From the first step until all of its processes are heard of.
UP_S = 60.0
#: A host that was just restarted is still heard of as it was before.
NAME_S = SILENT_S + 5.0


def join(
    settings: Settings,
    say: Say,
    *,
    find_address: bool = False,
    run_as: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Started:
    """Bring worker, control worker and agent up, or find them up. Raises StackError or BadSetting; what was started is
    stopped again then. ``find_address``: engines listen where this host's connections to the stack come from."""
    _check_parts(settings)
    if find_address:
        address = address_towards((settings.database_url, settings.broker_url))
        settings = replace(settings, node_address=address)
    settings = with_node_address(settings)
    make_state_dir(settings.state_dir)
    with locked(settings.state_dir, say):
        found = running(settings, WORKER_HOST)
        if found is not None:
            return found
        _check_keys(settings)
        return _start(settings, say, run_as, os.environ if environ is None else environ)


def _check_parts(settings: Settings) -> None:
    missing = [
        name
        for name, embedded in (
            ("HOSTLER_DATABASE_URL", embeds_postgres(settings)),
            ("HOSTLER_BROKER_URL", embeds_redis(settings)),
        )
        if embedded
    ]
    if missing:
        raise BadSetting(
            f"a worker host has no database and no broker of its own: set {' and '.join(missing)} to those of the stack"
            " that it joins (docs/other-hosts.md)"
        )


def _check_keys(settings: Settings) -> None:
    """Without them it would make keys of its own, and each request for its engines would be refused."""
    known = shared_keys(settings)
    missing = [name for name in SHARED if name not in known]
    if missing:
        folder = Layout(settings.state_dir).secrets
        names = " and ".join(f"secrets/{name}" for name in missing)
        variables = " and ".join(f"HOSTLER_{name.replace('-', '_').upper()}" for name in missing)
        raise BadState(
            f"this host does not have the stack's keys yet: copy {names} of the state dir on the stack's own host into"
            f" {folder} (mode 0600), or set {variables} as they are set there (docs/other-hosts.md)"
        )


def _start(settings: Settings, say: Say, run_as: str | None, environ: Mapping[str, str]) -> Started:
    deadline = time.monotonic() + UP_S
    end_leftovers(settings, say)
    wait_for_database(settings, deadline)
    check_broker(settings)
    ctx = Context.open(settings, application_name="hostler-worker-host")
    try:
        _check_stack(settings, ctx)
        _await_name(ctx, say)
        # read by those who type `hostler down` without this environment; prepare gives the file to its owner
        secrets.store_secret(settings.state_dir, secrets.STARTED_WITH, json.dumps(settings_environment(settings)))
        chosen = prepare(settings, run_as=run_as)
        if chosen.note:
            say(f"all of it runs as root: {chosen.note}")
        with supervised(settings, chosen, WORKER_HOST, environ, say) as supervisor:
            Supervisor(settings).start_roles(WORKER_HOST)
            programs = wait_for_programs(settings, deadline, lambda programs: _are_heard(ctx, programs))
    finally:
        ctx.close()
    for program in programs:
        say(f"{program.name:<15} pid {program.pid}")
    _tell(settings, say)
    return Started("", supervisor)


def _check_stack(settings: Settings, ctx: Context) -> None:
    """What would make this host useless to the stack, or the other way round."""
    found = standing(database_url(settings))
    if found.behind:
        raise PartFailed(f"{found}; run `hostler up` of this version on the stack's own host first")
    differing = key_marks.differing(ctx.database, must_share(settings))
    if NAMESPACE in differing:
        raise BadSetting(
            "HOSTLER_NAMESPACE here is not the stack's: set it, or leave it out, as on the stack's own host"
        )
    if differing:
        names = " and ".join(f"secrets/{name}" for name in differing)
        raise BadState(
            f"{names} here is not the stack's: its engines or what users stored could not be used; copy it from the"
            f" state dir on the stack's own host into {Layout(settings.state_dir).secrets}"
        )
    wanted = pools_served(settings) or []
    there = presence.all_pools(ctx)
    unknown = [name for name in wanted if name not in there]
    if unknown:
        raise BadSetting(
            f"no pool is called {unknown[0]!r}.{near(unknown[0], there)} `hostler pool list` shows them, and"
            f" `hostler pool create {unknown[0]} ...` makes it"
        )


def _await_name(ctx: Context, say: Say) -> None:
    deadline, told = time.monotonic() + NAME_S, False
    while taken := presence.holder_of_name(ctx, boot_id()):
        if time.monotonic() > deadline:
            raise BadState(taken)
        if not told:
            say(f"node {ctx.settings.node_name} was heard of elsewhere a moment ago; waiting until it is silent")
            told = True
        time.sleep(0.5)


def _are_heard(ctx: Context, programs: list[Program]) -> bool:
    """Whether those of them that do so have said in the database that they are there."""
    return presence.are_heard(ctx, {program.pid for program in programs if program.name in ROLES})


def _tell(settings: Settings, say: Say) -> None:
    pools = pools_served(settings)
    say(f"node {settings.node_name} serves {'every pool' if pools is None else 'pools ' + ', '.join(pools)}")
    if is_loopback(settings.node_address):
        say(f"engines listen on {settings.node_address}: a gateway on another host does not reach them (--address)")
    else:
        say(
            f"engines listen on {settings.node_address} and ask for the stack's engine key, but for those of engine"
            " command"
        )
