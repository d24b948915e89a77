"""Where the gateway's files lie, seen from HAProxy's working folder. Paths only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.stack.layout import Layout

CONFIG = "haproxy.cfg"
MAPS = "maps"
ACCESS_LOG = "access.log"
ACCESS_PIPE = "access.pipe"
#: Certificate and key in one file, as HAProxy wants them.
CERTIFICATE = "tls.pem"


@dataclass(frozen=True)
class Places:
    """The files in ``<state>/gateway`` (0700), HAProxy's working folder.

    Its configuration names them and its sockets relatively: a state dir's path may hold what HAProxy takes for syntax.
    """

    layout: Layout

    @property
    def folder(self) -> Path:
        return self.layout.gateway

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    @property
    def maps(self) -> Path:
        return self.folder / MAPS

    @property
    def table(self) -> Path:
        """The snapshot of what is routed where, for who has no database."""
        return self.layout.route_table

    @property
    def access_log(self) -> Path:
        return self.folder / ACCESS_LOG

    @property
    def access_pipe(self) -> Path:
        """Where HAProxy writes the access log; beside the sockets, for nobody else should open it."""
        return self.layout.run / ACCESS_PIPE

    @property
    def certificate(self) -> Path:
        return self.folder / CERTIFICATE


def socket_address(name: str) -> str:
    """A socket of the run dir as HAProxy is told it: ``run`` may be a link to a folder elsewhere."""
    return f"unix@../run/{name}"
