"""A real HAProxy with pre-made slots and nothing else, for tests of what programs it."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from app.domain.routing import hashed
from app.gateway.assignment import slot_names
from app.gateway.commands import Place, Shown
from app.gateway.haproxy import Haproxy
from app.gateway.maps import NAMES, ROUTES, SERVICES
from app.gateway.places import Places
from app.gateway.proxy import make_folder
from app.haproxy.runtime import HaproxyAway, Session
from app.settings import Settings
from app.stack.haproxy import haproxy_program
from app.stack.layout import Layout
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.ports import free_port

CHECKS = "check inter 200ms fastinter 100ms downinter 200ms fall 2 rise 1"


@dataclass
class Front:
    """One HAProxy of a state dir. ``X-Route`` and ``X-Service`` ask for a route by its name."""

    settings: Settings
    slots: int = 20
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.places = Places(Layout(self.settings.state_dir))
        make_folder(self.places)
        for name in NAMES:
            (self.places.maps / name).touch()
        self.place = Place("maps", "../run/relay.sock", CHECKS)
        self.slot_names = slot_names(self.slots)
        self.haproxy = Haproxy(self.places.layout.haproxy_socket, self.place, self.slot_names)
        self.places.config.write_text(self.render({}))

    def render(self, servers: Mapping[str, Sequence[str]]) -> str:
        """The file, as the product's own goes: slots, and names that lead to them."""
        slots = "\n".join(
            f"backend {slot}\n  balance leastconn\n  option httpchk\n  option redispatch 1\n  retries 3\n"
            '  http-check send meth GET uri-lf "%[srv_name,map_str(maps/checks.map,/health)]"\n'
            "  http-response set-header X-Server %s\n"
            + "".join(f"  server {words}\n" for words in servers.get(slot, ()))
            for slot in self.slot_names
        )
        return f"""global
  stats socket unix@../run/haproxy.sock mode 600 level admin
  maxconn 4000
defaults
  mode http
  timeout connect 1s
  timeout client 600s
  timeout server 600s
  timeout queue 5s
frontend door
  bind 127.0.0.1:{self.port}
  http-request set-var(txn.target) hdr(x-route),sha2(256),hex,map_str(maps/{ROUTES})
  acl by_service hdr(x-service) -m found
  http-request set-var(txn.target) hdr(x-service),sha2(256),hex,map_str(maps/{SERVICES}) if by_service
  http-request set-var(txn.slot) var(txn.target),field(1,|)
  http-request return status 404 if !{{ var(txn.target) -m found }}
  http-request return status 503 if {{ var(txn.slot) -m str -- - }}
  # so that every map is one that it knows
  http-request set-var(txn.a) hdr(x),map_str(maps/replicas.map),map_str(maps/registered.map)
  use_backend %[var(txn.slot)]
{slots}
"""

    def start(self) -> None:
        """From its file, as it is now."""
        with open(self.places.folder / "front.log", "ab") as log:
            self.process = subprocess.Popen(
                [haproxy_program(self.settings), "-db", "-f", self.places.config.name],
                cwd=self.places.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._answers, 10, f"HAProxy: {(self.places.folder / 'front.log').read_text()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
            self.process = None

    def ask(self, *commands: str) -> list[str]:
        with Session(self.places.layout.haproxy_socket) as session:
            return session.ask_all(commands)

    def shown(self) -> Shown:
        return self.haproxy.look(NAMES)

    def servers(self, name: str) -> dict[str, bool]:
        """server -> whether it takes new requests, of the slot that model ``name`` leads to; empty when to none."""
        shown = self.shown()
        slot = dict(shown.maps[ROUTES]).get(hashed(name), "-").partition("|")[0]
        return {
            server: not (one.draining or one.maintenance) for (at, server), one in shown.servers.items() if at == slot
        }

    def get(self, path: str = "/v1/models", **headers: str) -> httpx2.Response:
        return plain_http.get(f"http://127.0.0.1:{self.port}{path}", headers=_headers(headers), timeout=10)

    def stream(self, path: str, body: dict[str, Any], **headers: str) -> Any:
        """A context that yields the answer while it comes."""
        url = f"http://127.0.0.1:{self.port}{path}"
        return plain_http.stream("POST", url, json=body, headers=_headers(headers), timeout=600)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.places.folder / "front.log").read_text()
        try:
            self.ask("show version")
        except HaproxyAway:
            return False
        return True


def state_dir(folder: Path) -> Path:
    """A state dir with what a gateway needs of it."""
    state = folder / "state"
    (state / "run").mkdir(mode=0o700, parents=True)
    (state / "models").mkdir(mode=0o700)
    return state


def _headers(given: dict[str, str]) -> dict[str, str]:
    return {f"X-{name.capitalize()}": value for name, value in given.items()}
