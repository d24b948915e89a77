"""Start one role of the worker side: ``python -m workers.run worker|worker-control|beat|flower``."""

from __future__ import annotations

import os
import sys

from billiard.util import get_pdeathsig
from celery import Celery

from app.db.identity import namespace
from app.log import configure
from app.settings import Settings
from app.stack.address import tell_children, with_node_address

ROLES = ("worker", "worker-control", "beat", "flower")


def main(argv: list[str]) -> int:
    """Become the role; returns only on a usage error."""
    if len(argv) < 2 or argv[1] not in ROLES:
        sys.stderr.write(f"usage: python -m workers.run {'|'.join(ROLES)}\n")
        return 2
    role = argv[1]
    settings = with_node_address(Settings.load())
    tell_children(settings)
    os.environ["HOSTLER_ROLE"] = role
    os.environ["HOSTLER_NAMESPACE"] = namespace(settings)
    configure(settings, role)
    from workers.celery import make

    celery = make()
    if role == "flower":
        from workers.flower import serve

        serve(celery, settings)
        return 0
    # not by Celery's command line: that loads a shell, Flower, and whatever else is plugged into it
    if role == "beat":
        # in memory: no schedule file; any number of beats may run
        celery.Beat(scheduler="celery.beat:Scheduler", pidfile="", loglevel=settings.log_level, quiet=True).run()
        return 0
    _work(celery, role, settings)
    return 0


def _work(celery: Celery, role: str, settings: Settings) -> None:
    """Serve queues until SIGTERM."""
    # each child asks for a signal by a library that first loads a parser of C: here it is loaded for all of them
    get_pdeathsig()
    worker = celery.Worker(
        hostname=f"{role}@{settings.node_name}",
        pool_cls="prefork",
        concurrency=settings.control_concurrency if role == "worker-control" else settings.worker_concurrency,
        loglevel=settings.log_level,
        # presence is a row in Postgres; gossip and mingle cost more with every worker
        without_gossip=True,
        without_mingle=True,
        task_events=settings.task_events,
    )
    worker.start()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
