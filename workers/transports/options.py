"""The options by which a pool says how a host is reached, the same for every backend that can go to another one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.transports.base import Transport

#: For ``options_schema`` under the name ``ssh``.
SSH_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["host"],
    "description": "The host on which commands are given, reached by OpenSSH; without it, the worker's own.",
    "x-admin": True,
    "properties": {
        "host": {
            "type": "string",
            # what begins with a hyphen would be an option of ssh's
            "pattern": r"^[^-\s'\"`$\\;&<>|(){}][^\s'\"`$\\;&<>|(){}]*$(?!\n)",
            "maxLength": 255,
            "description": "Destination as ssh takes it: a Host of ssh_config, NAME, USER@NAME or ssh://USER@NAME:PORT.",
        },
        "config": {
            "type": "string",
            "pattern": "^/",
            "description": "Path of the ssh_config; by default the one of the user that the worker runs as.",
        },
        "connect_timeout_s": {
            "type": "number",
            "minimum": 1,
            "maximum": 120,
            "description": "How long to wait for a connection; 10 by default.",
        },
    },
}
#: For ``options_schema`` under the name ``tunnel``.
TUNNEL_SCHEMA: Mapping[str, Any] = {
    "type": "boolean",
    "x-admin": True,
    "description": "Engines are reached through the SSH connection only.",
}


@dataclass(frozen=True)
class SshOptions:
    """What ``SSH_SCHEMA`` describes, with its defaults."""

    host: str
    config: str | None = None
    connect_timeout_s: float = 10

    @property
    def trial(self) -> str:
        """What to type to see whether a login works without a question, and what ssh says."""
        config = f"-F {shlex.quote(self.config)} " if self.config else ""
        return f"ssh -o BatchMode=yes {config}{self.host} true"

    @classmethod
    def of(cls, option: Mapping[str, Any]) -> SshOptions:
        return cls(option["host"], option.get("config"), option.get("connect_timeout_s", cls.connect_timeout_s))


def open_transport(ssh: Mapping[str, Any] | None, run_dir: Path) -> Transport:
    """The way to the host that the option ``ssh`` names; to this host without one.

    ``run_dir`` is a private folder (0700) with a short path, for the sockets of connections.
    """
    from workers.transports.local import LocalTransport
    from workers.transports.ssh import SshTransport

    return SshTransport(SshOptions.of(ssh), run_dir) if ssh else LocalTransport()
