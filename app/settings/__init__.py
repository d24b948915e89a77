"""Every setting, read in this one place; what there is stands in the parts beside. Each field's metadata is its
documentation (a test compares the docs).

Order of precedence: an explicit argument, the environment (``HOSTLER_*``), what the state dir holds, the default.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from app.domain.endpoints import parse_allowance
from app.settings.declaring import BadSetting as BadSetting
from app.settings.declaring import absolute, check, parse, placed
from app.settings.declaring import env_name as env_name
from app.settings.gateway import Gateway
from app.settings.host import Host
from app.settings.serving import Serving
from app.settings.stack import Stack
from app.settings.upkeep import Upkeep


# their fields come in the order from the last of them to the first: so the docs list them
@dataclass(frozen=True)
class Settings(Upkeep, Gateway, Host, Serving, Stack):
    """The settings of one process. Durations are seconds, sizes bytes."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Settings from ``environ`` (default: the process's), then ``overrides`` that are not None.

        Raises BadSetting for a value that does not parse or cannot be.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        said_by: dict[str, str] = {}
        for item in fields(cls):
            also = item.metadata["also"]
            raw = environ.get(env_name(item.name), "")
            if raw == "" and also and environ.get(also):
                raw, said_by[item.name] = item.metadata["also_read"](environ[also]), also
            if raw != "":
                variable = said_by.get(item.name, env_name(item.name))
                values[item.name] = parse(variable, raw, item.default)
        values.update({name: value for name, value in overrides.items() if value is not None})
        settings = cls(**values)
        for item in fields(cls):
            check(item, getattr(settings, item.name), said_by.get(item.name, env_name(item.name)))
        try:
            parse_allowance(settings.register_allow)
        except ValueError as error:
            raise BadSetting(f"HOSTLER_REGISTER_ALLOW: {error}; an example: 10.0.0.0/8,gpu1.example") from error
        state_dir = Path(settings.state_dir) if settings.state_dir != Path() else default_state_dir(environ)
        state_dir = Path(os.path.abspath(state_dir.expanduser()))
        models_dir = settings.models_dir if settings.models_dir != Path() else state_dir / "models"
        recipes_dir = settings.recipes_dir if settings.recipes_dir != Path() else state_dir / "recipes"
        secrets_dir = settings.secrets_dir if settings.secrets_dir != Path() else state_dir / "recipe-secrets"
        return replace(
            settings,
            state_dir=state_dir,
            models_dir=Path(os.path.abspath(models_dir)),
            recipes_dir=Path(os.path.abspath(recipes_dir)),
            secrets_dir=Path(os.path.abspath(secrets_dir)),
            # processes that are started work in other folders
            tls_certificate=os.path.abspath(settings.tls_certificate) if settings.tls_certificate else "",
            tls_key=os.path.abspath(settings.tls_key) if settings.tls_key else "",
            vllm_command=placed(settings.vllm_command),
            sglang_command=placed(settings.sglang_command),
            qdrant_command=placed(settings.qdrant_command),
            llama_command=placed(settings.llama_command) if settings.llama_command else "",
            chat_model_path=absolute(settings.chat_model_path),
            external_ca=os.path.abspath(settings.external_ca) if settings.external_ca else "",
            node_name=settings.node_name or socket.gethostname().split(".")[0],
        )


def pools_served(settings: Settings) -> list[str] | None:
    """The pools that the workers of this host serve, sorted; None: all of them."""
    names = {name.strip() for name in settings.node_pools.split(",")} - {""}
    return sorted(names) or None


#: Every stream of a registration is sent something so often.
REGISTERED_ALIVE_S = 5.0


def registered_silence_s(settings: Settings) -> float:
    """How long what was sent to a registrar may go unacknowledged.

    With the wait for something to be sent before it, and a second for the news to get around, it is the lease.
    """
    return max(1.0, settings.register_lease_s - REGISTERED_ALIVE_S - 1.0)


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/hostler``, else ``~/.local/state/hostler``."""
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(base) / "hostler"
