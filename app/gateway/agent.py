"""The gateway's agent: ``python -m app.gateway.agent``. It keeps HAProxy's files and table right, and may die any time.

HAProxy is another process and serves on without it. Each turn (``keeping``) compares all that HAProxy holds with all
that the database says.
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial

from app.gateway.access_log import Scribe
from app.gateway.assignment import slot_names
from app.gateway.certificate import Renewer
from app.gateway.config import render
from app.gateway.haproxy import Haproxy
from app.gateway.keeping import Keeper
from app.gateway.keys import KeyFacts, make_key_maps
from app.gateway.loop import Agent
from app.gateway.overdue import Limits, Overdue
from app.gateway.places import Places
from app.gateway.proxy import make_folder, options_of, place_of
from app.gateway.writing import Files
from app.log import configure
from app.settings import Settings
from app.stack.environment import allow_open_files
from app.stack.layout import Layout
from app.usecases.context import Context
from app.usecases.tables import Read


def make_agent(settings: Settings, places: Places) -> Agent:
    """The agent of this host's gateway."""
    make_folder(places)
    options = options_of(settings)
    ctx = Context.open(settings, pool_size=2, application_name="hostler-gateway-agent")
    lanes = options.lanes
    place = place_of(lanes)
    slots = slot_names(lanes.slots)
    keeper = Keeper(
        ctx,
        places,
        Haproxy(places.layout.haproxy_socket, place, slots),
        Files(places, partial(render, options), place),
        place,
        slots,
        rest_s=(lanes.queue_s + lanes.connect_s) * (1 + lanes.retries) + 5,
        more_maps=_key_maps,
    )
    return Agent(ctx, keeper, places)


def limits_of(settings: Settings) -> Limits:
    """What the agent itself sees to."""
    return Limits(
        settings.gateway_first_byte_s,
        settings.gateway_idle_s,
        settings.gateway_total_s,
        settings.gateway_all_out == "try",
    )


def _key_maps(read: Read) -> dict[str, dict[str, str]]:
    return make_key_maps(
        KeyFacts(row.id, row.hash, row.role, row.models, row.limits, row.expires_at) for row in read.keys
    )


def main() -> int:
    """Work until SIGTERM."""
    settings = Settings.load()
    configure(settings, "gateway-agent")
    os.umask(0o077)
    # the file says how many connections fit, as the gateway's own process does
    allow_open_files()
    places = Places(Layout(settings.state_dir))
    agent = make_agent(settings, places)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, agent.stop)
    scribe, renewer = Scribe(places.access_pipe, places.access_log), Renewer(settings, places)
    overdue = Overdue(places.layout.haproxy_socket, limits_of(settings))
    scribe.start()
    renewer.start()
    overdue.start()
    agent.run()
    overdue.stop()
    renewer.stop()
    scribe.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
