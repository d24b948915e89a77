"""Start one role of the worker side: ``python -m workers.run worker|worker-control|beat|flower``."""

from __future__ import annotations

import os
import sys

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
    celery.start(_arguments(role, settings))
    return 0


def _arguments(role: str, settings: Settings) -> list[str]:
    if role == "beat":
        # in memory: no schedule file; any number of beats may run
        return ["beat", "--scheduler", "celery.beat:Scheduler", "--pidfile", "", "--loglevel", settings.log_level]
    count = settings.control_concurrency if role == "worker-control" else settings.worker_concurrency
    return [
        "worker",
        "--pool",
        "prefork",
        "--concurrency",
        str(count),
        "--hostname",
        f"{role}@{settings.node_name}",
        "--loglevel",
        settings.log_level,
        # presence is a row in Postgres; gossip and mingle cost more with every worker
        "--without-gossip",
        "--without-mingle",
        *(["--task-events"] if settings.task_events else []),
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
