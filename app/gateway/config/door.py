"""The public frontend. The order of its parts is the order in which a request is judged."""

from __future__ import annotations

from app import errors
from app.gateway.config import bodies, cors, keys, slots
from app.gateway.config.log import PATH_BYTES
from app.gateway.config.options import Options
from app.gateway.config.problems import refuse
from app.gateway.config.text import indented, quoted
from app.gateway.places import CERTIFICATE

CONTROL = "control"
FLOWER = "flower"
#: As the API takes them (app/api/auth.py).
REQUEST_ID = "^[A-Za-z0-9._:@/+=-]{1,128}$"
#: As much as the API takes (app/api/serving.py), bytes and lines.
LONGEST_ADDRESS = 4000
MOST_HEADERS = 95
#: Digits of a Content-Length: a petabyte.
LONGEST_LENGTH = 15
#: A step upwards in a path, encoded or not.
CLIMBING = r"'(/|%2f|\\)(\.|%2e){2}(/|%2f|\\|;|$)'"


def lines(options: Options) -> list[str]:
    """``frontend door``."""
    return indented(
        [
            "frontend door from base",
            f"bind {_address(options)}",
            "# the doors inside, through which some of these callers are answered, must always find room",
            f"maxconn {callers_at_once(options.connections)}",
            *_named(),
            *_refused(options),
            *_cleaned(options),
            *cors.lines(options),
            *keys.lines(options),
            *bodies.lines(options),
            *_flower(),
            *_routed(),
        ]
    )


def callers_at_once(connections: int) -> int:
    """Of the connections that the process holds, those that may be callers'."""
    return connections - max(connections // 20, 8)


def _address(options: Options) -> str:
    # HAProxy takes "::" for all addresses and "[::]" for none
    host = options.host if ":" not in options.host else f"ipv6@{options.host}"
    address = quoted(f"{host}:{options.port}")
    # the kernel ends a connection whose other end has acknowledged nothing, or let nothing be sent, for so long
    address += f" tcp-ut {round(options.unacknowledged_s * 1000)}ms"
    return f"{address} ssl crt {CERTIFICATE} alpn h2,http/1.1" if options.certificate else address


def _named() -> list[str]:
    """Who asks for what: set before anything can be refused, for the log and the problems."""
    return [
        "# one id per request, the caller's where it sent one in good form, in every log line and answer",
        "http-request set-var(txn.method) method",
        f"http-request set-var(txn.path) path,bytes(0,{PATH_BYTES})",
        f"acl names_itself req.fhdr(X-Request-Id) -m reg {REQUEST_ID}",
        "acl names_itself_once req.fhdr_cnt(X-Request-Id) eq 1",
        "http-request set-var(txn.request_id) req.fhdr(X-Request-Id) if names_itself_once names_itself",
        "http-request set-var(txn.request_id) uuid() unless { var(txn.request_id) -m found }",
        "http-request set-header X-Request-Id %[var(txn.request_id)]",
        "http-after-response set-header X-Request-Id %[var(txn.request_id)] if { var(txn.request_id) -m found }",
    ]


def _refused(options: Options) -> list[str]:
    """What nobody behind the door is asked about. What is no HTTP at all was refused before any rule."""
    return [
        "acl is_flower path /flower",
        "acl is_flower path_beg /flower/",
        "# a tunnel would take the connection past all that is checked here, and an echo shows a page its own cookies",
        f"http-request {refuse(errors.MethodNotAllowed)} if {{ method CONNECT TRACE }}",
        "# HTTP/1.0 has no chunks, and HAProxy takes a length of 2^64 + 2 for 2 and passes it on as it is: two servers",
        "# would disagree where such a request ends",
        f"http-request {refuse(errors.Malformed)} if HTTP_1.0 {{ req.hdr_cnt(Transfer-Encoding) gt 0 }}",
        f"http-request {refuse(errors.Malformed)} if {{ req.fhdr(Content-Length) -m len gt {LONGEST_LENGTH} }}",
        "# long addresses and crowds of headers are an attack on the parsers behind",
        f"http-request {refuse(errors.UriTooLong)} if {{ url,length gt {LONGEST_ADDRESS} }}",
        f"http-request {refuse(errors.HeadersTooLarge)} if {{ req.fhdr_cnt gt {MOST_HEADERS} }}",
        "# a body that nobody will take is refused before it is sent; one without a length by who reads it",
        f"http-request {refuse(errors.BodyTooLarge)} if {{ req.body_size gt {options.max_body} }}",
        "# a path is judged as it stands, and not normalised, for servers read it in ways of their own; one that leads",
        "# out of the place that it was let into is refused there",
        f"acl climbs path -m reg -i {CLIMBING}",
        f"http-request {refuse(errors.Malformed, detail='The address climbs out of its place. Send it without ..')}"
        " if is_flower climbs",
    ]


def _cleaned(options: Options) -> list[str]:
    """What a caller may not tell those behind the door."""
    return [
        "# all of them are looked through for each rule below, so that is done once",
        "http-request set-var(txn.names) req.hdr_names",
        "# what only our own processes may say; the two that callers may are judged by the routing",
        "http-request del-header ^x-hostler-(?!service$|replica$) -m reg if { var(txn.names) -m sub x-hostler- }",
        "# where a request came from is what we saw, not what it says",
        "acl claims var(txn.names) -m sub forwarded x-real-ip",
        "http-request del-header x-forwarded- -m beg if claims",
        "http-request del-header forwarded if claims",
        "http-request del-header x-real-ip if claims",
        "# some servers take these for a proxy to use, or for the name with a hyphen",
        "http-request del-header ^proxy(-.*)?$ -m reg if { var(txn.names) -m sub proxy }",
        "http-request del-header _ -m sub if { var(txn.names) -m sub _ }",
        "http-request set-header X-Forwarded-For %[src]",
        f"http-request set-header X-Forwarded-Proto {'https' if options.certificate else 'http'}",
        "http-request set-header X-Forwarded-Host %[req.hdr(Host)] if { req.hdr(Host) -m found }",
        "# what is said of one connection ends with it: a caller could have the next server drop headers that we set,",
        "# or change to a protocol in which nothing is checked; only Flower's pages use an upgrade, and one replica's",
        "# own API may, where the key is judged first",
        "acl is_one_replica path -m reg ^/api/v1/replicas/[^/]*/proxy(/|$)",
        "acl upgrades req.hdr(Upgrade) -m found",
        "http-request del-header connection unless is_flower || upgrades is_one_replica",
        "http-request set-header connection upgrade if upgrades is_one_replica",
        "http-request del-header upgrade if upgrades !is_flower !is_one_replica",
        "acl of_one_connection var(txn.names) -m sub keep-alive trailer http2-settings",
        "http-request del-header keep-alive if of_one_connection",
        "http-request del-header trailer if of_one_connection",
        "http-request del-header http2-settings if of_one_connection",
        "http-request del-header te",
        "http-request unset-var(txn.names)",
        "# what runs behind the door, and in which version, is nobody's business",
        "http-after-response del-header server",
        "http-after-response del-header x-powered-by",
        "http-after-response del-header via",
        "# how long an engine keeps its connection to us says nothing of the caller's",
        "http-after-response del-header keep-alive",
        f"http-after-response del-header {slots.FAILED}",
        "http-after-response set-header X-Content-Type-Options nosniff",
    ]


def _flower() -> list[str]:
    bad = "Bad API key: it is unknown, revoked or expired. `hostler key list` shows the keys."
    low = "This needs a key of role read. Ask an admin for one."
    known = "{ var(txn.key) -m found }"
    return [
        "# Flower has no keys of its own: who may read the stack may look; a browser sends the key as Basic's password",
        f"http-request {refuse(errors.Unauthenticated, detail=bad)}"
        f" if is_flower !{known} {{ var(txn.sent_key) -m found }}",
        f"http-request {refuse(errors.Unauthenticated)} if is_flower !{known}",
        f"http-request {refuse(errors.Forbidden, detail=low)} if is_flower !{keys.needs('read')}",
    ]


def _routed() -> list[str]:
    return [
        "# keys and models were judged before (keys.py, bodies.py); what is left is the control API's",
        f"use_backend {FLOWER} if is_flower",
        f"default_backend {CONTROL}",
    ]
