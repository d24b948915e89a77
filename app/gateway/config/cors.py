"""Pages of other origins: which of them a browser lets call the model API, answered at the door.

A browser first asks by OPTIONS, without a key, whether the page may; what it is told decides. Never with credentials:
a page sends its key itself, and what a browser would add by itself is not asked for.
"""

from __future__ import annotations

from app import errors
from app.domain.origins import ANY
from app.gateway.config.options import Options
from app.gateway.config.problems import refuse
from app.gateway.config.text import quoted

#: What such a page may call: what answers with tokens, text and models; never the control API.
PATHS = (
    "/",
    "/health",
    "/chat",
    "/models",
    "/tokenize",
    "/generate",
    "/stream/generate",
    "/batch/tokenize",
    "/batch/generate",
)
BEGINNINGS = ("/v1/",)
METHODS = "GET, POST, DELETE"
#: What a page may read of an answer beside what every page may.
SHOWN = "X-Request-Id, X-Hostler-Replica, Retry-After"
#: How long a browser need not ask again, in seconds.
REMEMBERED_S = 600
_HEADERS = "^[A-Za-z0-9, -]{1,1000}$"


def lines(options: Options) -> list[str]:
    """For the public frontend, before keys are asked for."""
    dropped = [
        "# whose pages may read an answer is said here alone: engines say it to everybody",
        "http-after-response del-header access-control- -m beg",
    ]
    return [*dropped, *_asked(options), *_preflight(), *_told(options)] if options.cors_origins else dropped


def _asked(options: Options) -> list[str]:
    listed = (
        ["acl is_listed req.fhdr(Origin) -m found"]
        if options.cors_origins == (ANY,)
        else [f"acl is_listed req.fhdr(Origin) -m str -- {quoted(origin)}" for origin in options.cors_origins]
    )
    return [
        f"acl is_shared path -m str -- {' '.join(PATHS)}",
        f"acl is_shared path_beg {' '.join(BEGINNINGS)}",
        "# the very text of one that is listed; what is sent twice is none",
        *listed,
        "acl has_origin req.fhdr(Origin) -m found",
        "acl has_origin_once req.fhdr_cnt(Origin) eq 1",
        "http-request set-var(txn.shared) bool(true) if is_shared",
        "http-request set-var(txn.origin) req.fhdr(Origin) if is_shared has_origin_once is_listed",
    ]


def _preflight() -> list[str]:
    unlisted = "Pages of this origin may not call the model API. HOSTLER_CORS_ORIGINS lists those that may."
    return [
        "acl from_listed var(txn.origin) -m found",
        "acl is_preflight method OPTIONS",
        "acl names_method req.fhdr(Access-Control-Request-Method) -m found",
        "http-request set-var(txn.preflight) bool(true) if is_preflight names_method from_listed",
        "acl is_answered var(txn.preflight) -m found",
        "http-request set-var(txn.may_send) req.fhdr(Access-Control-Request-Headers)"
        f" if is_answered {{ req.fhdr(Access-Control-Request-Headers) -m reg {quoted(_HEADERS)} }}",
        "http-request set-var(txn.private) bool(true)"
        " if is_answered { req.fhdr(Access-Control-Request-Private-Network) -m str true }",
        "http-request return status 204 if is_answered",
        f"http-request {refuse(errors.Forbidden, detail=unlisted)} if is_shared is_preflight names_method has_origin",
    ]


def _told(options: Options) -> list[str]:
    origin = ANY if options.cors_origins == (ANY,) else "%[var(txn.origin)]"
    told = "http-after-response set-header Access-Control-"
    return [
        f"{told}Allow-Origin {origin} if {{ var(txn.origin) -m found }}",
        f"{told}Expose-Headers {quoted(SHOWN)} if {{ var(txn.origin) -m found }} !{{ var(txn.preflight) -m found }}",
        f"{told}Allow-Methods {quoted(METHODS)} if {{ var(txn.preflight) -m found }}",
        f"{told}Allow-Headers %[var(txn.may_send)] if {{ var(txn.may_send) -m found }}",
        f"{told}Max-Age {REMEMBERED_S} if {{ var(txn.preflight) -m found }}",
        f"{told}Allow-Private-Network true if {{ var(txn.private) -m found }}",
        "# a cache must not hand one origin's answer to another",
        "http-after-response add-header Vary Origin if { var(txn.shared) -m found }",
        "http-after-response add-header Vary 'Access-Control-Request-Method, Access-Control-Request-Headers'"
        " if { var(txn.preflight) -m found }",
    ]
