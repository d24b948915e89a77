"""Who may: the key of a request, and what its record allows. The records are a map by the key's SHA-256.

A record is ``id|role|all or some|expiry in seconds since 1970 or 0|requests per second or 0|in flight or 0``. It is
looked up for every request, so that a key that leaves the map stops working with the next one.
"""

from __future__ import annotations

import math
from fractions import Fraction

from app import errors
from app.gateway.config.options import Options
from app.gateway.config.problems import refuse
from app.gateway.config.text import indented
from app.gateway.keys import KEYS

#: The table that counts what keys with limits do.
TABLE = "key_limits"
#: Which of HAProxy's counters of a request is ours.
_COUNTER = 2
#: The table, and the counter, of what each key asks of the chat.
CHAT_TABLE = "chat_limits"
_CHAT_COUNTER = 0
CHAT_PATHS = "/chat /chat/"
_ID, _ROLE, _SCOPE, _EXPIRY, _RATE, _IN_FLIGHT = range(1, 7)


def lines(options: Options) -> list[str]:
    """For the public frontend: sets ``txn.key`` for a key that lives, ``txn.key_id``, ``txn.role``, ``txn.scope``."""
    return [*_found(options), *_limited(), *_chat_limited(options.chat_rate)]


def table() -> list[str]:
    """The backend that holds the counters; nothing is ever sent there."""
    return indented(
        [
            f"backend {TABLE} from base",
            "# an entry that nobody used for so long is forgotten; one in use is not",
            "stick-table type string len 12 size 100k expire 1m store gpc(1),gpc_rate(1,1s),conn_cur",
        ]
    )


def chat_table(rate: float) -> list[str]:
    """The same for the chat's; nothing without a rate."""
    if not rate:
        return []
    _, within_s = per_period(rate)
    return indented(
        [
            f"backend {CHAT_TABLE} from base",
            f"stick-table type string len 12 size 100k expire {within_s + 60}s store gpc(1),gpc_rate(1,{within_s}s)",
        ]
    )


def per_period(rate: float) -> tuple[int, int]:
    """``rate`` per second as (requests, whole seconds): the table counts only whole ones of both."""
    if rate < 1:
        return 1, math.ceil(1 / max(rate, 1 / 3600))
    fraction = Fraction(rate).limit_denominator(10)
    return fraction.numerator, fraction.denominator


def needs(role: str) -> str:
    """The condition under which a key found may do what asks for ``role``."""
    granted = {"infer": "infer operate admin", "read": "read operate admin"}[role]
    return f"{{ var(txn.role) -m str {granted} }}"


def _found(options: Options) -> list[str]:
    twice = "Send one API key, in one header, once."
    return [
        "# of two keys, this door and a server behind it could take different ones",
        f"http-request {refuse(errors.Malformed, detail=twice)}"
        " if { req.fhdr_cnt(X-API-Key) gt 1 } || { req.fhdr_cnt(Authorization) gt 1 }"
        " || { req.fhdr_cnt(api-key) gt 1 }",
        "# clients of Qdrant, and others, have no other name for it; it goes on under ours, and never by theirs",
        "acl has_other_name req.fhdr_cnt(api-key) gt 0",
        "http-request set-header X-API-Key %[req.fhdr(api-key)] if has_other_name !{ req.fhdr_cnt(X-API-Key) gt 0 }"
        " !{ req.fhdr_cnt(Authorization) gt 0 }",
        "http-request del-header api-key if has_other_name",
        "http-request set-var(txn.secret) req.fhdr(X-API-Key) if { req.fhdr(X-API-Key) -m len gt 0 }",
        "http-request set-var(txn.secret) http_auth_bearer unless { var(txn.secret) -m found }",
        "http-request set-var(txn.secret) http_auth_pass unless { var(txn.secret) -m found }",
        "# only its hash is kept, and only as long as this rule runs",
        f"http-request set-var(txn.key) var(txn.secret),sha2(256),hex,map_str({options.lanes.maps}/{KEYS})"
        " if { var(txn.secret) -m found }",
        "http-request set-var(txn.sent_key) bool(true) if { var(txn.secret) -m found }",
        "http-request unset-var(txn.secret) if { var(txn.sent_key) -m found }",
        f"http-request set-var(txn.expiry) var(txn.key),field({_EXPIRY},|) if {{ var(txn.key) -m found }}",
        "http-request unset-var(txn.key) if { var(txn.expiry) -m found } !{ var(txn.expiry) -m str 0 }"
        " { date,sub(txn.expiry) ge 0 }",
        f"http-request set-var(txn.key_id) var(txn.key),field({_ID},|) if {{ var(txn.key) -m found }}",
        f"http-request set-var(txn.role) var(txn.key),field({_ROLE},|) if {{ var(txn.key) -m found }}",
        f"http-request set-var(txn.scope) var(txn.key),field({_SCOPE},|) if {{ var(txn.key) -m found }}",
    ]


def _limited() -> list[str]:
    fast = "The key has used its requests per second. Wait as long as Retry-After says."
    many = "The key has as many requests in flight as it may. Wait until one has ended."
    return [
        f"http-request set-var(txn.rate) var(txn.key),field({_RATE},|) if {{ var(txn.key) -m found }}",
        f"http-request set-var(txn.at_once) var(txn.key),field({_IN_FLIGHT},|) if {{ var(txn.key) -m found }}",
        "acl has_rate var(txn.rate),add(0) gt 0",
        "acl has_at_once var(txn.at_once),add(0) gt 0",
        f"http-request track-sc{_COUNTER} var(txn.key_id) table {TABLE} if has_rate || has_at_once",
        f"http-request {refuse(errors.RateLimited, detail=many)}"
        f" if has_at_once {{ sc_conn_cur({_COUNTER},{TABLE}),sub(txn.at_once) gt 0 }}",
        "# only what is let in counts: who asks too often gets his share, not nothing",
        f"http-request {refuse(errors.RateLimited, detail=fast)}"
        f" if has_rate {{ sc_gpc_rate(0,{_COUNTER},{TABLE}),sub(txn.rate) ge 0 }}",
        f"http-request sc-inc-gpc(0,{_COUNTER}) if has_rate",
    ]


def _chat_limited(rate: float) -> list[str]:
    if not rate:
        return []
    most, within_s = per_period(rate)
    many = f"A key may send {most} requests to the chat in {within_s} s. Wait as long as Retry-After says."
    return [
        f"acl is_chat path -m str -- {CHAT_PATHS}",
        f"http-request track-sc{_CHAT_COUNTER} var(txn.key_id) table {CHAT_TABLE}"
        " if is_chat { var(txn.key_id) -m found }",
        f"http-request {refuse(errors.RateLimited, detail=many, retry_after_s=within_s)}"
        f" if is_chat {{ sc_gpc_rate(0,{_CHAT_COUNTER},{CHAT_TABLE}) ge {most} }}",
        f"http-request sc-inc-gpc(0,{_CHAT_COUNTER}) if is_chat {{ var(txn.key_id) -m found }}",
    ]
