"""The bare create: check three fields, one INSERT, one LPUSH of a message made beforehand, 202.

Run by gunicorn with gevent, as ours is. ``FLOOR_DATABASE_URL`` and ``FLOOR_REDIS_SOCKET`` say where.
"""

from __future__ import annotations

import atexit
import json
import os
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import redis
from psycopg_pool import ConnectionPool

MESSAGE = json.dumps({"body": "W10=", "headers": {"task": "floor"}, "properties": {"delivery_tag": "x" * 36}})
INSERT = "INSERT INTO floor_creates (id, model_name, spec) VALUES (%s, %s, %s)"
QUEUE = "floor:queue"

pool: ConnectionPool[Any] = ConnectionPool(
    os.environ["FLOOR_DATABASE_URL"], min_size=4, max_size=16, kwargs={"autocommit": True}, open=False
)
atexit.register(pool.close)
broker = redis.Redis(unix_socket_path=os.environ["FLOOR_REDIS_SOCKET"])


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI callable."""
    pool.open()  # per process, after the fork; returns at once when it is open
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    try:
        wish = json.loads(body)
        name, mode = wish["model_name"], wish["server_mode"]
        if not isinstance(name, str) or mode != "replica_mock":
            raise ValueError(mode)
    except (ValueError, KeyError, TypeError):
        start_response("400 Bad Request", [("Content-Length", "0")])
        return [b""]
    replica_id = uuid.uuid4().hex[:12]
    with pool.connection() as connection:
        connection.execute(INSERT, (replica_id, name, body.decode()))
    broker.lpush(QUEUE, MESSAGE)
    answer = json.dumps({"replica_id": replica_id, "status": "pending"}).encode()
    start_response("202 Accepted", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
