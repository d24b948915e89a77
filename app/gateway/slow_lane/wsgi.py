"""The application of one process, from the settings."""

from __future__ import annotations

from app import log
from app.gateway.places import Places
from app.gateway.slow_lane.application import Limits, SlowLane
from app.gateway.slow_lane.room import Room
from app.gateway.slow_lane.table import Table
from app.settings import Settings
from app.stack.layout import Layout

#: How long a body waits for room.
_WAIT_S = 10


def make_application() -> SlowLane:
    settings = Settings.load()
    log.configure(settings, "slow-lane")
    places = Places(Layout(settings.state_dir))
    # one body of the largest size must fit
    size = max(settings.slow_lane_bytes, settings.max_body)
    return SlowLane(
        Table(places.table, places.maps),
        Room(size, settings.slow_lane_queue, _WAIT_S),
        # the checks after the first one that failed come faster
        Limits(settings.max_body, settings.slow_lane_body_s, settings.gateway_retries, 1.5 * settings.gateway_check_s),
        str(places.layout.inside_socket),
    )
