"""Where the API is and with which key: arguments, then the environment, then the state dir of a stack on this host."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hostler.errors import BadInput, NoKey, Unreachable
from hostler.listener import foreign_listener

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Connection:
    """One server and the key for it. ``key`` is empty when none was found: some routes are open."""

    url: str
    key: str = field(default="", repr=False)
    #: file of the certificate that this host's stack serves, to be trusted whatever names it holds
    certificate: str = ""

    @property
    def loopback(self) -> bool:
        """Whether the server is on this host, where no proxy may come between."""
        host = urlsplit(self.url).hostname or ""
        return host in ("localhost", "::1") or host.startswith("127.")


def find_connection(
    url: str | None = None,
    key: str | None = None,
    *,
    key_file: str | Path | None = None,
    state_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Connection:
    """The connection that the arguments, ``HOSTLER_URL`` and ``HOSTLER_API_KEY``, or the state dir name.

    An explicit ``state_dir`` is an argument like the others: it goes before the environment. The key of a state dir
    is sent to no other address than that of its own stack: on a shared host another user's server may listen on the
    next port, or on this one after the stack was killed. Raises BadInput for an address that is none, NoKey for a
    key file that cannot be read, Unreachable when no stack was started in ``state_dir`` or a stranger listens there.
    """
    environ = os.environ if environ is None else environ
    folder = Path(os.path.abspath(Path(state_dir).expanduser())) if state_dir else find_state_dir(environ)
    own_url, certificate = _stack_address(folder)
    from_environ = "" if state_dir else environ.get("HOSTLER_URL", "")
    if not (own_url or url or from_environ) and _runs_engines_alone(folder):
        hint = "give --url, or set HOSTLER_URL, and a key"
        raise Unreachable(f"{folder} is a worker host's: the stack's API is elsewhere", hint=hint, sent=False)
    if state_dir and not own_url and not url:
        raise Unreachable(f"no stack was started in {folder}", hint=f"hostler up -d --state-dir {folder}", sent=False)
    chosen = _checked_url(url or from_environ or own_url or _usual_url(environ))
    is_own = bool(own_url) and _origin(_checked_url(own_url)) == _origin(chosen)
    certificate = certificate if is_own else ""
    if key:
        return Connection(chosen, key, certificate)
    if key_file:
        return Connection(chosen, _read_key(Path(key_file)), certificate)
    if environ.get("HOSTLER_API_KEY") and not (state_dir and is_own):
        return Connection(chosen, environ["HOSTLER_API_KEY"], certificate)
    if not is_own:
        return Connection(chosen)
    found = Connection(chosen, _stack_key(folder), certificate)
    _refuse_impostor(found, folder)
    return found


def find_state_dir(environ: Mapping[str, str]) -> Path:
    """``HOSTLER_STATE_DIR``, else ``$XDG_STATE_HOME/hostler``, else ``~/.local/state/hostler``."""
    if environ.get("HOSTLER_STATE_DIR"):
        return Path(os.path.abspath(Path(environ["HOSTLER_STATE_DIR"]).expanduser()))
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".local" / "state")
    return Path(os.path.abspath(Path(base) / "hostler"))


def find_models_dir(state_dir: Path, environ: Mapping[str, str]) -> Path:
    """``HOSTLER_MODELS_DIR``, else ``<state dir>/models``."""
    return Path(os.path.abspath(environ.get("HOSTLER_MODELS_DIR") or state_dir / "models"))


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise BadInput(f"{url!r} is no address of a server; an example: {DEFAULT_URL}")
    if parts.username or parts.password:
        raise BadInput("an address must not hold a key; use HOSTLER_API_KEY or --key-file")
    return parts.geturl().rstrip("/")


def _usual_url(environ: Mapping[str, str]) -> str:
    """Where a stack of this environment would listen."""
    port = environ.get("HOSTLER_PORT", "").strip()
    if not port:
        return DEFAULT_URL
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) <= 65535):
        raise BadInput(f"HOSTLER_PORT={port!r} is no port", hint="a number from 1 to 65535")
    return f"http://127.0.0.1:{int(port)}"


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _refuse_impostor(connection: Connection, folder: Path) -> None:
    uid = foreign_listener(_origin(connection.url)[2], folder) if connection.loopback and connection.key else None
    if uid is not None:
        raise Unreachable(
            f"{connection.url} is another user's server now (uid {uid}), not the stack of {folder}; no key was sent",
            hint="is the stack up? hostler up -d, with another --port",
            sent=False,
        )


def _record(folder: Path) -> dict[str, Any]:
    try:
        known = json.loads((folder / "stack.json").read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _runs_engines_alone(folder: Path) -> bool:
    """Whether `hostler worker` was the last start there."""
    return _record(folder).get("kind") == "worker host"


def _stack_address(folder: Path) -> tuple[str, str]:
    """(URL, certificate file) of the stack that was started there, each empty when there is none."""
    known = _record(folder)
    url, certificate = known.get("url"), known.get("certificate")
    return url if isinstance(url, str) else "", certificate if isinstance(certificate, str) else ""


def _stack_key(folder: Path) -> str:
    path = folder / "secrets" / "admin-key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise NoKey(f"cannot read {path}: {error.strerror}", hint="set HOSTLER_API_KEY, or give --key-file") from error


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise NoKey(f"cannot read the key file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise NoKey(f"the key file {path} holds no text") from error
    if not key or len(key.split()) != 1:
        raise NoKey(f"the key file {path} must hold one key and nothing else")
    return key
