"""Which service is meant: by its id, by its name, or by what a cluster calls the job of one of its replicas."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from app.db.repos import services as repo
from app.errors import Conflict, NotFound, Unavailable
from app.usecases.job_ids import MOST, meant


def find_id(connection: Connection, ref: str) -> str | None:
    """The id of the service: a name is that of the running one, else of the last one; a job that of the only one for
    which it runs, else of the only one that had it. None when there is none. Raises Conflict when a job means several.
    """
    return repo.find_id(connection, ref) or meant(ref, "services", repo.of_job(connection, ref, MOST))


def to_id(connection: Connection, ref: str) -> str:
    """The same. Raises NotFound, Conflict, Unavailable."""
    check_migrated(connection)
    found = find_id(connection, ref)
    if found is None:
        raise unknown(ref)
    return found


def read(connection: Connection, ref: str) -> Any:
    """The service's row. Raises NotFound, Conflict, Unavailable."""
    return _there(repo.read(connection, to_id(connection, ref)), ref)


def lock(connection: Connection, ref: str) -> Any:
    """The same, locked until the transaction ends."""
    return _there(repo.lock(connection, to_id(connection, ref)), ref)


def check_migrated(connection: Connection) -> None:
    """Raises Unavailable on a schema of the version before, which has no services."""
    if not repo.is_there(connection):
        raise Unavailable(
            "The database was not migrated to this version yet, which has services. Run `hostler up`, or the"
            " deployment's migrate job.",
            retry_after_s=5,
        )


def unknown(ref: str) -> NotFound:
    """There is no such service."""
    return NotFound(f"There is no service {ref}. See `hostler service list`.")


def cancelled(row: Any) -> Conflict:
    """Nothing of it answers any more."""
    return Conflict(
        f"Service {row.name} was cancelled and answers no more. Make a new one, or see `hostler service list`."
    )


def _there(row: Any | None, ref: str) -> Any:
    if row is None:
        # forgotten meanwhile
        raise unknown(ref)
    return row
