"""Whether the broker lets us in."""

from __future__ import annotations

from kombu import Connection
from kombu.exceptions import OperationalError

CONNECT_S = 5


class BrokerAway(Exception):
    """It cannot be reached, or refuses us. The message is its own."""


def reach(url: str) -> str:
    """Connect once; returns what kind of broker it is. Raises BrokerAway."""
    # kombu's own timeout does not reach redis-py, which would wait as long as the kernel does
    options = {"socket_connect_timeout": CONNECT_S, "socket_timeout": CONNECT_S} if url.startswith("redis") else {}
    try:
        with Connection(url, connect_timeout=CONNECT_S, transport_options=options) as connection:
            connection.ensure_connection(max_retries=1, timeout=CONNECT_S)
            return str(connection.transport.driver_type)
    except (OperationalError, OSError, TypeError, ValueError) as error:
        # the last two for options in the URL that the broker's client does not know or cannot read
        raise BrokerAway(" ".join(str(error).split())[:300]) from error
