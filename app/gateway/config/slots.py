"""The pre-made backends: how a replica is chosen, how often and how long it is tried, and when it is out.

What holds for all of them stands once, in ``defaults engines``; a slot itself is only a name and its servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from app import errors
from app.gateway.assignment import slot_names
from app.gateway.config.lanes import Lanes
from app.gateway.config.options import Options
from app.gateway.config.problems import http_error, refuse
from app.gateway.config.text import indented, quoted
from app.gateway.maps import CHECKS, REGISTERED

ENGINES = "engines"
#: Set on what HAProxy answers itself where an engine should have: who asks through the inside door may try again.
FAILED = "X-Hostler-Failed"
#: The inference requests that another replica may be asked again: they change nothing. OpenAI's, then llama.cpp's own.
REPLAYABLE = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/completion",
    "/completions",
    "/chat/completions",
    "/embedding",
    "/embeddings",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/infill",
)
#: uvicorn and llama.cpp close a connection that was idle for 5 s; it must be us who does so first.
_IDLE_S = 2
_BUSY_RETRY_S = 2


def lines(options: Options, servers: Mapping[str, Sequence[str]]) -> list[str]:
    """``defaults engines`` and every slot; ``servers`` has the words after ``server`` by slot."""
    found = [*_engines(options.lanes)]
    for slot in slot_names(options.lanes.slots):
        found += [
            "",
            *indented([f"backend {slot} from {ENGINES}", *(f"server {one}" for one in servers.get(slot, ()))]),
        ]
    return found


def check_words(lanes: Lanes) -> str:
    """What stands behind every server, in the file and in ``add server``, which takes no defaults."""
    every_ms = int(lanes.check_s * 1000)
    return (
        f"check inter {every_ms} fastinter {max(every_ms // 4, 50)} downinter {every_ms} fall {lanes.fall} rise 1"
        f" observe layer7 error-limit {lanes.error_limit} on-error fail-check pool-purge-delay {_IDLE_S}s"
    )


def stripped(lanes: Lanes) -> list[str]:
    """What an engine is not told, and the key that it is."""
    key = (
        f"http-request set-header Authorization {quoted(f'Bearer {lanes.engine_key}')}"
        if lanes.engine_key
        else "http-request del-header Authorization"
    )
    return [
        "# the caller's key is ours to judge and nobody else's to see",
        "http-request del-header X-API-Key",
        "http-request del-header Proxy-Authorization",
        "http-request del-header X-Hostler- -m beg",
        key,
    ]


def _engines(lanes: Lanes) -> list[str]:
    paths = " ".join(REPLAYABLE)
    full = refuse(errors.RouteFull, retry_after_s=_BUSY_RETRY_S)
    out = "Every replica of the model is out: checks or requests failed. Try again; see `hostler replica list`."
    failed = f" hdr {FAILED} 1"
    return indented(
        [
            f"defaults {ENGINES} from base",
            "# requests are logged by the door; this would be a line per slot at each stop",
            "no log",
            "balance leastconn",
            "# a replica that is gone is left for another at once",
            "option redispatch 1",
            f"retries {lanes.retries}",
            "# before the first byte, and only for what may be asked twice; an engine that is still loading says 503",
            "retry-on conn-failure empty-response junk-response 503",
            f"http-request disable-l7-retry unless METH_POST {{ path {paths} }}",
            f"timeout connect {_ms(lanes.connect_s)}",
            f"timeout queue {_ms(lanes.queue_s)}",
            "# an engine may think long before its first byte; the agent ends streams that stall later",
            f"timeout server {_ms(lanes.first_byte_s)}",
            f"timeout tunnel {_ms(lanes.tunnel_s)}",
            "timeout check 2s",
            "option httpchk",
            f'http-check send meth GET uri-lf "%[srv_name,map_str({lanes.maps}/{CHECKS},/health)]"'
            ' ver HTTP/1.1 hdr Host gateway hdr X-Hostler-Server "%[srv_name]"',
            "# a server of somebody's that knows no GET, or no such path, says 501: it is there",
            "http-check expect rstatus ^([1-4]|501)",
            f"http-request {refuse(errors.NoReadyReplica, detail=out)} if {{ nbsrv lt 1 }}",
            f"http-request {full} if {_is_full(lanes.queue)}",
            *stripped(lanes),
            "# the relay must know which of the registered servers was chosen",
            "http-send-name-header X-Hostler-Server",
            "# only HAProxy's own answers carry it",
            f"http-response del-header {FAILED}",
            "http-response set-var(txn.replica) srv_name,regsub(-[0-9]*$,)",
            "# the name of a registered server is a hash; what its owner calls it is in the map",
            f"http-response set-var(txn.registered) srv_name,map_str({lanes.maps}/{REGISTERED}),field(3,|)",
            "http-response set-var(txn.replica) var(txn.registered) if { var(txn.registered) -m len gt 0 }",
            "http-response set-header X-Hostler-Replica %[var(txn.replica)]",
            *(
                f"{http_error(error, status)}{failed}"
                for status, error in (
                    (502, errors.BadGateway),
                    (503, errors.ReplicasBusy),
                    (504, errors.GatewayTimedOut),
                )
            ),
        ]
    )


def _is_full(queue: int) -> str:
    # a queue without a place is not full while a server has room; -1 where one has no bound
    return f"{{ queue ge {queue} }}" if queue else "{ be_conn_free eq 0 }"


def _ms(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"
