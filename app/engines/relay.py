"""HAProxy's configuration for one external server. Pure text; every value was checked by who made the Relay."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.domain.endpoints import Endpoint

#: Between two looks at a server that answers, that just failed, and that is away.
CHECK_S, SUSPECT_S, AWAY_S = 15, 3, 2
#: The longest that HAProxy can hold on to an address while DNS does not answer.
HOLD = "24d"


@dataclass(frozen=True)
class Relay:
    """``base_path`` takes the place of ``/v1``; ``ready_path`` is asked for readiness. ``key_env`` names the variable
    with the external key, empty for none. ``addresses`` are where the host was seen to be, at best the first of them;
    ``ca_file`` is empty for the system's authorities. Times are seconds."""

    host: str
    port: int | str
    upstream: Endpoint
    tls: bool
    base_path: str
    ready_path: str
    key_env: str
    key_header: str
    idle_timeout_s: int
    addresses: Sequence[str] = ()
    ca_file: str = ""
    engine_key: str = field(default="", repr=False)


def render(relay: Relay) -> str:
    """The file. It holds a hash of the engine key and the name of the variable with the external one, no secret."""
    parts = (_process(relay), _dns(relay), _door(relay), _upstream(relay))
    return "\n\n".join("\n    ".join(part) for part in parts if part) + "\n"


def _process(relay: Relay) -> list[str]:
    return [
        "global",
        "nbthread 1",
        # as many connections as this carries, however high the limit of open files is
        "fd-hard-limit 20000",
        # a port that somebody else holds is an error, and not one to share
        "noreuseport",
        "log stdout format raw local0",
        "\ndefaults",
        "mode http",
        "log global",
        "option dontlognull",
        "option httplog",
        # each token on its way when it comes, and a caller that went away ends the work
        "option http-no-delay",
        "option abortonclose",
        "retries 2",
        "timeout connect 10s",
        "timeout http-request 30s",
        "timeout http-keep-alive 75s",
        f"timeout client {relay.idle_timeout_s}s",
        f"timeout server {relay.idle_timeout_s}s",
        *(f"http-error status {status} {_error(words)}" for status, words in _ERRORS.items()),
    ]


def _dns(relay: Relay) -> list[str]:
    if not _follows_dns(relay):
        return []
    kept = [f"hold {outcome} {HOLD}" for outcome in ("nx", "timeout", "refused", "other")]
    # a name server that is away, or does not know what /etc/hosts says, changes nothing
    return ["resolvers dns", "parse-resolv-conf", *kept, "hold obsolete 30s"]


def _door(relay: Relay) -> list[str]:
    key = hashlib.sha256(f"Bearer {relay.engine_key}".encode()).hexdigest().upper()
    ours = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "forwarded", "proxy-authorization")
    health = "{ var(txn.health) -m bool }"
    return [
        "frontend door",
        f"bind {_address(relay.host)}:{relay.port}",
        # once it answered, its own checks know: a probe of ours each second is no request to somebody else
        "http-request return status 200 content-type text/plain string ok if { path /health }"
        " { var(proc.seen) -m bool } { nbsrv(upstream) gt 0 }",
        f"http-request return status 503 {_error('the external server does not answer')} if {{ path /health }}"
        " { var(proc.seen) -m bool }",
        "http-request set-var(txn.health) bool(true) if { path /health }",
        f"http-request return status 401 {_error('Unauthorized')} unless {health} or"
        f" {{ req.fhdr(authorization),sha2(256),hex -m str {key} }} {{ req.fhdr_cnt(authorization) eq 1 }}",
        "http-request use-service prometheus-exporter if { path /metrics }",
        f"http-request return status 404 {_error('only what is below /v1 is relayed')} unless {health} or"
        " { path -m reg ^/v1(/|$) } !{ path,url_dec -m sub .. }",
        f"http-request set-method GET if {health}",
        f"http-request set-uri {relay.ready_path} if {health}",
        # a base without a path: what is left of the slash
        f"http-request set-path {relay.base_path}%[path,regsub(^/v1/?,/)] if !{health}",
        *(f"http-request del-header {name}" for name in ours),
        "http-request del-header x-hostler- -m beg",
        "http-request del-header x-forwarded- -m beg",
        f"http-request set-header host {_host_header(relay)}",
        *([f"http-request set-header {relay.key_header} {_key(relay)}"] if relay.key_env else []),
        "default_backend upstream",
    ]


def _upstream(relay: Relay) -> list[str]:
    health = "{ var(txn.health) -m bool }"
    key = f" hdr {relay.key_header} {_key(relay)}" if relay.key_env else ""
    refused = "the external server refused the key that Hostler has for it (UPSTREAM_API_KEY)"
    return [
        "backend upstream",
        "option httpchk",
        f"http-check send meth GET uri {relay.ready_path} ver HTTP/1.1 hdr Host {_host_header(relay)}{key}",
        "http-check expect status 200-299",
        "timeout check 10s",
        "http-response set-var(proc.seen) bool(true) if { status 200:299 }",
        f"http-response return status 200 content-type text/plain string ok if {health} {{ status 200:299 }}",
        f"http-response return status 503 {_error('the external server does not answer 2xx')} if {health}",
        # the caller's own key was good
        f"http-response return status 502 {_error(refused)} if {{ status 401 }}",
        *(f"http-response del-header {name}" for name in ("set-cookie", "alt-svc", "strict-transport-security")),
        *_servers(relay),
    ]


def _servers(relay: Relay) -> list[str]:
    checks = f"check inter {CHECK_S}s fastinter {SUSPECT_S}s downinter {AWAY_S}s rise 1 fall 3"
    port = relay.upstream.port
    if not relay.tls:
        found = relay.addresses or (relay.upstream.host,)
        return [f"server at{number} {_address(one)}:{port} {checks}" for number, one in enumerate(found)]
    name = relay.upstream.host
    ca = f'"{relay.ca_file}"' if relay.ca_file else "@system-ca"
    tls = f"ssl verify required ca-file {ca} verifyhost {name} ssl-min-ver TLSv1.2 {checks}"
    if relay.upstream.address is None:
        tls += f" sni str({name}) check-sni {name}"
    if _follows_dns(relay):
        first = ",".join([*relay.addresses[:1], "libc", "none"])
        tls += f" resolvers dns resolve-prefer ipv4 init-addr {first}"
    return [f"server at {_address(name)}:{port} {tls}"]


def _follows_dns(relay: Relay) -> bool:
    # a name that plain http goes to must not come to mean another host: nothing there proves who answers
    return relay.tls and relay.upstream.address is None


def _key(relay: Relay) -> str:
    scheme = "Bearer " if relay.key_header == "authorization" else ""
    return f'"{scheme}%[env({relay.key_env})]"'


def _host_header(relay: Relay) -> str:
    port = relay.upstream.port
    host = _address(relay.upstream.host)
    return host if port == (443 if relay.tls else 80) else f"{host}:{port}"


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


#: What HAProxy answers by itself.
_ERRORS = {
    400: "the request cannot be read",
    408: "the request did not come in time",
    500: "the relay failed",
    502: "the external server answered badly",
    503: "the external server does not answer",
    504: "the external server did not answer in time",
}


def _error(words: str) -> str:
    body = json.dumps({"error": {"message": words, "type": "upstream_error"}})
    return "content-type application/json string " + json.dumps(body)
