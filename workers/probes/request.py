"""One request to an engine with a body and the engine key, all of it within a deadline."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit


@contextmanager
def answered(
    base_url: str, method: str, path: str, *, key: str, deadline: float, body: Any = None
) -> Iterator[http.client.HTTPResponse]:
    """The answer, its head read; the connection is closed behind the block. ``deadline`` is monotonic.

    ``key`` goes along as a bearer token when it is not empty. Raises OSError and http.client.HTTPException, also when
    the deadline passes in the middle of the body or ``base_url`` is empty.
    """
    address = urlsplit(base_url)
    if not address.hostname:
        # without a host the connection would go to whoever listens here
        raise ConnectionError("there is no way to it now")
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=max(0.001, deadline - time.monotonic())
    )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection.connect()
    # a socket's timeout starts anew with each byte, so a trickle would hold us for ever
    guard = threading.Timer(max(0.0, deadline - time.monotonic()), _cut, (connection.sock,))
    guard.daemon = True
    guard.start()
    try:
        connection.request(method, path, body=None if body is None else json.dumps(body), headers=headers)
        yield connection.getresponse()
    finally:
        guard.cancel()
        connection.close()


def filled(value: Any, model_name: str) -> Any:
    """``value`` with ``{model}`` replaced, however deep it stands."""
    if isinstance(value, str):
        return value.replace("{model}", model_name)
    if isinstance(value, Mapping):
        return {name: filled(member, model_name) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [filled(member, model_name) for member in value]
    return value


def _cut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # closed already: the request is over
        return
