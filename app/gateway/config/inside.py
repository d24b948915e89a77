"""What is reached through the doors: one replica by its name, the slow lane, registered servers; and the inside door.

The inside door is for our own processes (a socket of mode 0600): they have judged the caller, and say by a header where
to. Balancing, failover and the engine key are in one place for all.
"""

from __future__ import annotations

from app import errors
from app.gateway.config import keys
from app.gateway.config.bodies import SLOW_LANE
from app.gateway.config.options import Options
from app.gateway.config.problems import http_error, refuse
from app.gateway.config.slots import FAILED, stripped
from app.gateway.config.text import indented
from app.gateway.maps import NO_SLOT, REGISTERED, REPLICAS, ROUTES, SERVICES
from app.haproxy.shown import ONE_REPLICA

RELAYED = "relayed"
#: The slow lane answers after HAProxy's own limits, which must be the first to end.
_PATIENCE_S = 60


def lines(options: Options) -> list[str]:
    """Every section but the slots."""
    sections = (
        _inside(options),
        _slow_lane(options),
        _one_replica(options),
        _relay(options),
        _relayed(options),
        keys.table(),
        keys.chat_table(options.chat_rate),
    )
    return "\n\n".join("\n".join(section) for section in sections if section).split("\n")


def _inside(options: Options) -> list[str]:
    maps = options.lanes.maps
    nowhere = "No route, service or replica was named."
    return indented(
        [
            "frontend inside from base",
            f"bind {options.lanes.inside} mode 600",
            "http-request set-var(txn.method) method",
            "http-request set-var(txn.path) path,bytes(0,1000)",
            "http-request set-var(txn.request_id) req.fhdr(X-Request-Id)",
            "http-request set-var(txn.key_id) req.fhdr(X-Hostler-Key-Id)",
            "http-after-response set-header X-Request-Id %[var(txn.request_id)] if { var(txn.request_id) -m found }",
            f"http-request set-var(txn.target) req.fhdr(X-Hostler-Route),upper,map_str({maps}/{ROUTES})",
            f"http-request set-var(txn.target) req.fhdr(X-Hostler-Service),sha2(256),hex,map_str({maps}/{SERVICES})"
            " if { req.fhdr(X-Hostler-Service) -m found }",
            "http-request set-var(txn.replica) req.fhdr(X-Hostler-Replica) if { req.fhdr(X-Hostler-Replica) -m found }",
            f"http-request set-var(txn.member) var(txn.replica),map_str({maps}/{REPLICAS})"
            " if { var(txn.replica) -m found }",
            "http-request set-var(txn.slot) var(txn.target),field(1,|) if { var(txn.target) -m found }",
            f"http-request {refuse(errors.NoReadyReplica)} if {{ var(txn.replica) -m found }}"
            " !{ var(txn.member) -m found }",
            f"http-request {refuse(errors.NotFound, detail=nowhere)} if !{{ var(txn.replica) -m found }}"
            " !{ var(txn.slot) -m found }",
            f"http-request {refuse(errors.NoReadyReplica)} if {{ var(txn.slot) -m str -- {NO_SLOT} }}"
            " !{ var(txn.replica) -m found }",
            "# only a request that was here as a whole before it was sent on can be sent to another replica",
            f"http-request wait-for-body time {options.lanes.body_s}s"
            f" if {{ req.body_size gt 0 }} {{ req.body_size lt {options.lanes.buffer_bytes} }}",
            f"use_backend {ONE_REPLICA} if {{ var(txn.member) -m found }}",
            "use_backend %[var(txn.slot)]",
        ]
    )


def _slow_lane(options: Options) -> list[str]:
    lanes = options.lanes
    patience_s = int(lanes.first_byte_s + lanes.queue_s) * (lanes.retries + 1) + _PATIENCE_S
    down = "The slow lane does not answer; requests whose model is found at once are served. Try again."
    return indented(
        [
            f"backend {SLOW_LANE} from base",
            f"timeout server {patience_s}s",
            "# it may be started anew at any time, and what is sent on a kept connection of the one before is lost",
            "http-reuse never",
            "# it takes few at a time by itself and refuses the rest; a body cannot be sent twice from here",
            "retries 3",
            "http-request del-header X-API-Key",
            "http-request del-header Authorization",
            "http-request set-header X-Hostler-Key-Id %[var(txn.key_id)]",
            "http-request set-header X-Hostler-Scope %[var(txn.scope)]",
            "http-request set-header X-Hostler-Lane %[var(txn.lane)]",
            "http-response set-var(txn.replica) res.fhdr(X-Hostler-Replica)",
            "http-response set-var(txn.route) res.fhdr(X-Hostler-Model)",
            "http-response del-header X-Hostler-Model",
            http_error(errors.Unavailable, detail=down),
            f"server slow {lanes.slow_lane} pool-purge-delay 30s",
        ]
    )


def _one_replica(options: Options) -> list[str]:
    lanes = options.lanes
    return indented(
        [
            f"backend {ONE_REPLICA} from base",
            "# exactly this one, never another: and nothing is sent twice",
            f"timeout connect {int(lanes.connect_s * 1000)}ms",
            f"timeout server {int(lanes.first_byte_s * 1000)}ms",
            f"timeout tunnel {int(lanes.tunnel_s * 1000)}ms",
            "retries 1",
            "# a kept connection may be closed by the engine as we use it, and what is not replayed would be lost",
            "http-reuse never",
            "# how many each is answering: one that is asked to stop is left alone until they are answered",
            "stick-table type string len 32 size 100k expire 1m store conn_cur",
            "http-request track-sc1 var(txn.replica)",
            "http-request set-dst var(txn.member),field(1,|)",
            "http-request set-dst-port var(txn.member),field(2,|)",
            *stripped(lanes),
            f"http-response del-header {FAILED}",
            "http-response set-header X-Hostler-Replica %[var(txn.replica)]",
            *(
                f"{http_error(error, status)} hdr {FAILED} 1"
                for status, error in (
                    (502, errors.BadGateway),
                    (503, errors.NoReadyReplica),
                    (504, errors.GatewayTimedOut),
                )
            ),
            "server exact 0.0.0.0:0",
        ]
    )


def _relay(options: Options) -> list[str]:
    """In front of servers that are not ours."""
    return indented(
        [
            "frontend relay from base",
            f"bind {options.lanes.relay} mode 600",
            "# one line a request is enough, and the slot has written it",
            "http-request set-log-level silent",
            f"http-request set-var(txn.to) req.fhdr(X-Hostler-Server),map_str({options.lanes.maps}/{REGISTERED})",
            f"http-request {refuse(errors.BadGateway)} unless {{ var(txn.to) -m found }}",
            "# the engine key is for our own engines alone",
            "http-request del-header Authorization",
            "http-request del-header X-Hostler- -m beg",
            f"default_backend {RELAYED}",
        ]
    )


def _relayed(options: Options) -> list[str]:
    lanes = options.lanes
    return indented(
        [
            f"backend {RELAYED} from base",
            f"timeout connect {int(lanes.connect_s * 1000)}ms",
            "# what ends a request is decided before it comes here",
            f"timeout server {int(lanes.first_byte_s) + _PATIENCE_S}s",
            f"timeout tunnel {int(lanes.tunnel_s * 1000)}ms",
            "retries 0",
            "# a server that ends without an answer, or is not there, must look so to the slot too, which then asks",
            "# another one: an answer from here would be taken for the server's own",
            "errorfile 502 /dev/null",
            "errorfile 503 /dev/null",
            "http-request set-dst var(txn.to),field(1,|)",
            "http-request set-dst-port var(txn.to),field(2,|)",
            "server registered 0.0.0.0:0",
        ]
    )
