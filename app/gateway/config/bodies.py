"""Which model: by the body's ``model``, ``X-Hostler-Service``, ``X-Hostler-Replica`` or a replica's own address.

The fast lane takes what it is sure of. It reads a body as bytes, and an engine reads it as JSON: they must not come to
different models. So it wants the whole body (its length sent, all of it in the buffer, no NUL, not compressed), which
holds ``"model"`` once in whatever case, followed by a colon and a quote; no escape that could spell one of its letters
(``\\u006d``, ``\\u004D``...); and HAProxy's own JSON reader must find it at the top. Everything else is the slow
lane's.

With a key that is limited to models that holds for every request with a body, also where a header says where it goes.
"""

from __future__ import annotations

from app import errors
from app.gateway.config.keys import needs
from app.gateway.config.options import Options
from app.gateway.config.problems import refuse
from app.gateway.keys import KEY_MODELS
from app.gateway.maps import NO_SLOT, REPLICAS, ROUTES, SERVICES
from app.haproxy.shown import ONE_REPLICA

SLOW_LANE = "slow_lane"
_PROXY = "/api/v1/replicas/"


def lines(options: Options) -> list[str]:
    """For the public frontend, after ``keys.lines``; what it does not route is for who comes next."""
    return [
        *_asked(),
        *_read(options),
        *_let_through(options),
        *_admitted(),
        *_named(options),
        *_looked_up(options),
        *_checked(options),
        *_sent(),
    ]


def _asked() -> list[str]:
    """Whether this is ours at all, and the replica's own address taken apart."""
    return [
        f"acl is_proxy path_beg {_PROXY}",
        "http-request set-var(txn.lane) str(proxy) if is_proxy { path,field(6,/) -m str proxy }",
        "http-request set-var(txn.lane) str(v1) if { path_beg /v1/ }",
        "acl is_lane var(txn.lane) -m found",
        "acl is_proxied var(txn.lane) -m str proxy",
    ]


def _read(options: Options) -> list[str]:
    """``txn.asked``: the hash of the model in the body, where that is sure."""
    lanes = options.lanes
    return [
        "acl has_body req.body_size gt 0",
        "acl is_chunked req.fhdr_cnt(Transfer-Encoding) gt 0",
        "acl is_compressed req.fhdr_cnt(Content-Encoding) gt 0",
        "acl is_limited var(txn.scope) -m str some",
        f"acl may_infer {needs('infer').strip('{} ')}",
        "acl names_service req.fhdr_cnt(X-Hostler-Service) gt 0",
        "acl names_replica req.fhdr_cnt(X-Hostler-Replica) gt 0",
        "acl has_length req.fhdr_cnt(Content-Length) eq 1",
        f"acl may_fit req.body_size lt {lanes.buffer_bytes}",
        "acl is_json req.fhdr(Content-Type) -m beg -i application/json",
        "acl has_type_once req.fhdr_cnt(Content-Type) eq 1",
        "# who goes by its body, and what of a limited key has one",
        "http-request set-var(txn.goes) str(body) if is_lane !is_proxied !names_service !names_replica",
        "acl goes_by_body var(txn.goes) -m found",
        "http-request set-var(txn.sure) bool(true) if is_lane may_infer has_body may_fit has_length is_json"
        " has_type_once !is_chunked !is_compressed goes_by_body"
        " || is_lane may_infer has_body may_fit has_length is_json has_type_once !is_chunked !is_compressed is_limited",
        "acl is_sure var(txn.sure) -m found",
        f"http-request wait-for-body time {lanes.body_s}s if is_sure",
        "# as text it ends at a NUL, so that the lengths agree only without one and with all of it here; made once,",
        "# because making it costs more than reading it",
        "http-request set-var(txn.text) req.body,concat() if is_sure",
        "http-request set-var(txn.have) var(txn.text),length if is_sure",
        "# without the first one that is a key of a string; HAProxy has no other way to say: once",
        'http-request set-var(txn.rest) \'req.body,regsub("\\"model\\"[\\t\\n\\r ]*:[\\t\\n\\r ]*\\"","",i)\''
        " if is_sure { req.body_size,sub(txn.have) eq 0 }",
        "# one character more than a name may have: what is cut is no name",
        "http-request set-var(txn.route) 'var(txn.text),json_query(\"$.model\"),bytes(0,201)'"
        " if is_sure { var(txn.rest) -m beg { } !{ var(txn.rest) -m reg -i '\"model\"' }"
        " !{ var(txn.rest) -m reg '\\\\u00[46]' }",
        "http-request unset-var(txn.rest) if is_sure",
        "http-request unset-var(txn.text) if is_sure",
        "http-request set-var(txn.asked) var(txn.route),sha2(256),hex if { var(txn.route) -m found }",
        "acl has_asked var(txn.asked) -m found",
        f"http-request set-var(txn.target) var(txn.asked),map_str({lanes.maps}/{ROUTES}) if has_asked goes_by_body",
        "acl has_target var(txn.target) -m found",
        "http-request set-var(txn.slot) var(txn.target),field(1,|) if has_target",
        "http-request set-var(txn.model) var(txn.target),field(2,|) if has_target",
    ]


def _let_through(options: Options) -> list[str]:
    """The end of the way for nearly all: what comes behind need not be looked at."""
    models = f"{options.lanes.maps}/{KEY_MODELS}"
    return [
        "# a limited key: the name itself, or the model behind it, must be among its models",
        f"http-request set-var(txn.may_asked) var(txn.key_id),concat(|,txn.asked),map_str({models})"
        " if is_limited has_asked",
        f"http-request set-var(txn.may) var(txn.key_id),concat(|,txn.model),map_str({models})"
        " if is_limited has_target !{ var(txn.may_asked) -m found }",
        f"acl has_slot var(txn.slot) -m reg ^[^{NO_SLOT}]",
        "http-request allow if has_slot !is_limited",
        "http-request allow if has_slot { var(txn.may_asked) -m found }",
        "http-request allow if has_slot { var(txn.may) -m found }",
    ]


def _admitted() -> list[str]:
    bad = "Bad API key: it is unknown, revoked or expired. `hostler key list` shows the keys."
    low = "This needs a key of role infer. Ask an admin for one."
    return [
        f"http-request {refuse(errors.Unauthenticated, detail=bad)}"
        " if is_lane !{ var(txn.key) -m found } { var(txn.sent_key) -m found }",
        f"http-request {refuse(errors.Unauthenticated)} if is_lane !{{ var(txn.key) -m found }}",
        f"http-request {refuse(errors.Forbidden, detail=low)} if is_lane !{needs('infer')}",
    ]


def _named(options: Options) -> list[str]:
    """Headers that say where to."""
    once = "X-Hostler-Service, X-Hostler-Replica and Content-Type: send each once."
    both = "X-Hostler-Service and X-Hostler-Replica contradict each other: send one of them."
    maps = options.lanes.maps
    return [
        f"http-request {refuse(errors.Malformed, detail=once)} if is_lane {{ req.fhdr_cnt(X-Hostler-Service) gt 1 }}"
        " || is_lane { req.fhdr_cnt(X-Hostler-Replica) gt 1 } || is_lane { req.fhdr_cnt(Content-Type) gt 1 }",
        f"http-request {refuse(errors.Contradiction, detail=both)} if is_lane names_service names_replica",
        "http-request set-var(txn.service) req.fhdr(X-Hostler-Service),sha2(256),hex"
        " if is_lane !is_proxied names_service",
        "http-request set-var(txn.replica) req.fhdr(X-Hostler-Replica) if is_lane !is_proxied names_replica",
        "http-request set-var(txn.replica) path,field(5,/) if is_proxied",
        "http-request set-path %[path,regsub(^/api/v1/replicas/[^/]*/proxy/?,/)] if is_proxied",
        "# the slow lane is told where to by a header in both cases",
        "http-request del-header X-Hostler-Service if is_proxied",
        "http-request set-header X-Hostler-Replica %[var(txn.replica)] if is_proxied",
        "acl to_replica var(txn.replica) -m found",
        "acl to_service var(txn.service) -m found",
        f"http-request set-var(txn.member) var(txn.replica),map_str({maps}/{REPLICAS}) if to_replica",
        f"http-request set-var(txn.target) var(txn.service),map_str({maps}/{SERVICES}) if to_service",
    ]


def _looked_up(options: Options) -> list[str]:
    gone = "No replica of that name takes requests now. `hostler replica list` shows what there is."
    unknown = "There is no service of that name. `hostler service list` shows what there is."
    return [
        f"http-request {refuse(errors.NoReadyReplica, detail=gone)} if to_replica !{{ var(txn.member) -m found }}",
        f"http-request {refuse(errors.NotFound, detail=unknown)} if to_service !has_target",
        "http-request set-var(txn.slot) var(txn.target),field(1,|) if to_service",
        "http-request set-var(txn.model) var(txn.target),field(2,|) if to_service",
        "http-request set-var(txn.model) var(txn.member),field(3,|) if to_replica",
    ]


def _checked(options: Options) -> list[str]:
    """What was not let through: refused, or the slow lane's."""
    models = f"{options.lanes.maps}/{KEY_MODELS}"
    return [
        f"http-request {refuse(errors.WrongEncoding)} if is_compressed goes_by_body"
        " || is_compressed is_lane is_limited",
        "# what a header leads to must be allowed by itself",
        f"http-request set-var(txn.may) var(txn.key_id),concat(|,txn.model),map_str({models})"
        " if is_limited to_replica || is_limited to_service",
        f"http-request {refuse(errors.ModelForbidden)} if is_limited !{{ var(txn.may) -m found }} to_replica"
        " || is_limited !{ var(txn.may) -m found } to_service",
        f"http-request {refuse(errors.ModelForbidden)} if goes_by_body is_limited has_target"
        " !{ var(txn.may) -m found } !{ var(txn.may_asked) -m found }",
        "# and a body that it brings along too: what is not surely allowed is read by the slow lane",
        "http-request set-var(txn.slow) bool(true) if is_limited to_replica has_body !{ var(txn.may_asked) -m found }"
        " || is_limited to_service has_body !{ var(txn.may_asked) -m found }"
        " || is_limited to_replica is_chunked || is_limited to_service is_chunked",
        "# what is not ready may be in a moment: the slow lane looks again before it says so",
        "http-request set-var(txn.slow) bool(true) if is_lane !to_replica !has_slot",
    ]


def _sent() -> list[str]:
    return [
        f"use_backend {SLOW_LANE} if {{ var(txn.slow) -m found }}",
        f"use_backend {ONE_REPLICA} if to_replica is_lane",
        "use_backend %[var(txn.slot)] if is_lane",
    ]
