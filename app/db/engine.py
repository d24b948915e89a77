"""Connections to Postgres. One ``Database`` per process, made after the fork: sockets must not be shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.errors import Unavailable


class Database:
    """Short transactions and reads. Nothing outside the database is asked while one is open."""

    def __init__(self, url: str, *, pool_size: int = 5, application_name: str = "hostler") -> None:
        self.url = url
        self._pid = os.getpid()
        self._engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=10,
            pool_pre_ping=True,
            # values may be secret; errors with their SQL are logged
            hide_parameters=True,
            connect_args={
                "application_name": application_name,
                "connect_timeout": 5,
                # a client that froze inside a transaction must not hold its row locks for ever
                "options": "-c idle_in_transaction_session_timeout=20000 -c statement_timeout=30000 -c timezone=UTC",
            },
        )
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

    def close(self) -> None:
        """Give every connection back to Postgres."""
        self._engine.dispose()

    def _assert_own_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a Database made before a fork was used after it")


@contextmanager
def _unavailable_when_down() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(
            "The database does not answer. Try again; `hostler doctor` says what is wrong.", retry_after_s=2
        ) from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(
                "The connection to the database was lost. Try again.", retry_after_s=2
            ) from error
        raise
