"""Connections to Postgres. One ``Database`` per process, made after the fork: sockets must not be shared."""

from __future__ import annotations

import _socket
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import Connection, Engine, ExceptionContext, TextClause, create_engine, event
from sqlalchemy.dialects.postgresql.psycopg import dialect as psycopg_dialect
from sqlalchemy.exc import (
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    NotSupportedError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import Collided, Unavailable

T = TypeVar("T")

#: Postgres gave up one of two that waited for each other.
_COLLISIONS = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
#: Indexes that let one of two through: the other reads again and finds what the first one wrote.
_CLAIMED_BY_INDEX = ("uq_tasks_open_lifecycle",)
_TRIES = 6

#: A link that is cut tells nobody. Our end gives a connection up after about fifteen seconds (libpq's names; ms for the
#: last), and not after the minutes of TCP's own: until then its user hangs, and does not even say so.
CUT_OFF: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
#: The same at the server's end, as ``options`` of a session: what a host that was cut off holds locked is given back.
#: Unix sockets ignore it.
CUT_OFF_THERE = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=3 -c tcp_keepalives_count=3 -c tcp_user_timeout=20000"
)

DOWN = "The database does not answer. Try again; `hostler doctor` says what is wrong."
FULL = "The disk of the database is full. Make room on it, then try again; what was accepted before is kept."
CROWDED = (
    "The database takes no more connections. Try again; if it lasts, raise max_connections of Postgres or end clients"
    " that hold too many."
)
UNMIGRATED = (
    "The database was not migrated to this version ({}). Run `hostler up`, or the deployment's migrate job;"
    " `hostler doctor` helps."
)
LOST = "The connection to the database was lost. Try again."
#: What this version asks for and a schema of the version before does not have.
_MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction)
#: A refused connection has no code, only the server's words.
_CROWDED_WORDS = ("too many clients", "too many connections", "connection slots are reserved")


class Database:
    """Short transactions and reads. Nothing outside the database is asked while one is open."""

    def __init__(
        self, url: str, *, pool_size: int = 5, application_name: str = "hostler", overflow: int | None = None
    ) -> None:
        """``overflow`` connections beyond ``pool_size`` are made when all are busy, and closed again at once.

        That suits a peak now and then. Under load it costs more than the statement, so a server takes none and waits.
        """
        self.url = url
        self._pid = os.getpid()
        self._engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size if overflow is None else overflow,
            pool_timeout=10,
            # the connection used last has its statements planned and its caches full
            pool_use_lifo=True,
            # values may be secret; errors with their SQL are logged
            hide_parameters=True,
            connect_args={
                "application_name": application_name,
                "connect_timeout": 5,
                **CUT_OFF,
                # a client that froze inside a transaction must not hold its row locks for ever
                "options": "-c idle_in_transaction_session_timeout=20000 -c statement_timeout=30000 -c timezone=UTC"
                # a plan is kept from when a table was small, where reading all of it looked cheapest, and tables grow
                # by thousands before anybody counts them again: take the index wherever there is one
                f" -c enable_seqscan=off {CUT_OFF_THERE}",
            },
        )
        event.listen(self._engine, "connect", _keep_peeker)
        event.listen(self._engine, "checkout", _refuse_closed)
        event.listen(self._engine, "close", _drop_peeker)
        event.listen(self._engine, "handle_error", _renew_after_migration)
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back on any exception."""
        self._assert_own_process()
        with _unavailable_when_down(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection without a transaction around its statements."""
        self._assert_own_process()
        with _unavailable_when_down(), self._autocommit.connect() as connection:
            yield connection

    def change(self, act: Callable[[Connection], T]) -> T:
        """``act`` in a transaction of its own, once more when another change of the same record got in its way.

        What it read before it waited for a lock may be old then, so it begins anew. Raises Collided after a few times.
        """
        for tries_left in range(_TRIES - 1, -1, -1):
            try:
                with self.begin() as connection:
                    return act(connection)
            except Collided:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Give every connection back to Postgres."""
        self._engine.dispose()

    def _assert_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a Database made before a fork was used after it")


def driver_sql(statement: TextClause) -> str:
    """What the driver takes, for ``first_row``."""
    return str(statement.compile(dialect=psycopg_dialect()))


def first_row(connection: Connection, statement: str, values: Mapping[str, Any]) -> Any | None:
    """The first row of one statement, past SQLAlchemy's machinery: for the one hot path where that costs more than
    Postgres does. Raises Unavailable, and psycopg's own errors."""
    try:
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(statement, values)
            return cursor.fetchone()
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        connection.invalidate()
        raise Unavailable(_words(error), retry_after_s=2) from error


def _keep_peeker(connection: Any, record: Any) -> None:
    # a socket object of its own over the same connection, unpatched even under gevent: peeking must not wait
    record.info["peeker"] = _socket.socket(fileno=os.dup(connection.pgconn.socket))


def _drop_peeker(_connection: Any, record: Any) -> None:
    peeker = record.info.pop("peeker", None)
    if peeker is not None:
        peeker.close()


def _refuse_closed(_connection: Any, record: Any, _proxy: Any) -> None:
    """A connection that Postgres closed meanwhile has an end of file to read; asking it costs no round trip."""
    try:
        record.info["peeker"].recv(1, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
    except BlockingIOError:
        return
    except OSError as error:
        raise DisconnectionError(str(error)) from error
    # an end, or a message nobody asked for (the server says why it closes)
    raise DisconnectionError("closed by the server")


def _renew_after_migration(context: ExceptionContext) -> None:
    """A statement that was prepared before a migration gave its table a column fails for ever on its connection.

    So do others on the other connections: all are replaced, and whoever was at it tries again.
    """
    if _is_outdated_plan(context.original_exception):
        context.is_disconnect = True


def _is_outdated_plan(error: object) -> bool:
    return isinstance(error, psycopg.errors.FeatureNotSupported) and "cached plan" in str(error)


def _constraint(error: IntegrityError) -> str:
    diagnostic = getattr(error.orig, "diag", None)
    return str(getattr(diagnostic, "constraint_name", "") or "")


@contextmanager
def _unavailable_when_down() -> Iterator[None]:
    try:
        yield
    except NotSupportedError as error:
        if _is_outdated_plan(error.orig):
            raise Collided(retry_after_s=1) from error
        raise
    except (OperationalError, InterfaceError) as error:
        if isinstance(error.orig, _COLLISIONS):
            raise Collided(retry_after_s=1) from error
        raise Unavailable(_words(error.orig), retry_after_s=2) from error
    except PoolTimeout as error:
        # all of this process's connections were busy for as long as a caller waits
        raise Unavailable(DOWN, retry_after_s=2) from error
    except IntegrityError as error:
        if _constraint(error) in _CLAIMED_BY_INDEX:
            raise Collided(retry_after_s=1) from error
        raise
    except DBAPIError as error:
        if isinstance(error.orig, _MISSING):
            raise Unavailable(UNMIGRATED.format(error.orig.diag.message_primary), retry_after_s=5) from error
        if error.connection_invalidated:
            raise Unavailable(LOST, retry_after_s=2) from error
        raise


def _words(error: object) -> str:
    """What to tell of a database that refused or did not answer."""
    if isinstance(error, psycopg.errors.DiskFull):
        return FULL
    if isinstance(error, psycopg.errors.TooManyConnections) or any(word in str(error) for word in _CROWDED_WORDS):
        return CROWDED
    return DOWN
