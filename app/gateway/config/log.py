"""The access log: one JSON object a line. Never a body, a key, or a query string, which may hold secrets."""

from __future__ import annotations

#: Longer lines are cut by HAProxy, and would be no JSON: a path is cut before (each of its bytes may take two). A pipe
#: takes so much whole or not at all.
LINE_BYTES = 4096
PATH_BYTES = 1000

#: name -> (log-format, whether it is a text). What a request never had is ``-``, or -1 for a time.
_FIELDS: dict[str, tuple[str, bool]] = {
    # when it came, in seconds since 1970
    "time": ("%Ts.%ms", False),
    "request_id": ("%[var(txn.request_id)]", True),
    "client": ("%ci", True),
    "method": ("%[var(txn.method),json(utf8s)]", True),
    "path": ("%[var(txn.path),json(utf8s)]", True),
    "status": ("%ST", False),
    "route": ("%[var(txn.route),json(utf8s)]", True),
    "replica": ("%[var(txn.replica),json(utf8s)]", True),
    "key_id": ("%[var(txn.key_id),json(utf8s)]", True),
    "queue_ms": ("%Tw", False),
    "connect_ms": ("%Tc", False),
    # from the request handed to the server to its first byte
    "first_byte_ms": ("%Tr", False),
    "total_ms": ("%Ta", False),
    "bytes_in": ("%U", False),
    "bytes_out": ("%B", False),
    "retries": ("%rc", False),
    # how it ended, in HAProxy's two letters: who closed, and at which step
    "ended": ("%ts", True),
    "backend": ("%b", True),
    "server": ("%s", True),
}


def lines() -> list[str]:
    """For ``defaults``."""
    members = (f'"{name}":"{value}"' if is_text else f'"{name}":{value}' for name, (value, is_text) in _FIELDS.items())
    return ["log-format '{" + ",".join(members) + "}'"]
