"""What the workers' connection to the broker may cost, as written where Celery is made."""

from __future__ import annotations

from kombu.transport.redis import Transport

from app.doorbell.celery import make_celery
from app.settings import Settings


def test_a_worker_that_waits_for_nothing_is_back_well_before_all_must_have_come_to_rest() -> None:
    options = make_celery(Settings(), "redis://localhost", "n").conf.broker_transport_options
    # an answer may take that long, and a deaf worker is deaf no longer than that
    assert Transport.brpop_timeout < options["socket_timeout"] <= 10
