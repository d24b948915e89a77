"""The secrets of one stack: files of mode 0600 in ``<state>/secrets``, each made once and never changed by us."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from app.settings import Settings
from app.stack.errors import BadState
from app.stack.layout import Layout

POSTGRES_PASSWORD = "postgres-password"  # noqa: S105  (a file name)
ENGINE_KEY = "engine-key"
SECRET_KEY = "secret-key"  # noqa: S105
ADMIN_KEY = "admin-key"
FLOWER_PASSWORD = "flower-password"  # noqa: S105


def postgres_password(settings: Settings) -> str:
    """Password of the embedded Postgres's role."""
    return ensure_secret(settings.state_dir, POSTGRES_PASSWORD)


def engine_key(settings: Settings) -> str:
    """The stack-wide key that engines demand from callers."""
    return settings.engine_key or ensure_secret(settings.state_dir, ENGINE_KEY, make_engine_key)


def secret_key(settings: Settings) -> str:
    """The Fernet key (urlsafe base64 of 32 bytes) that encrypts what users stored."""
    return settings.secret_key or ensure_secret(settings.state_dir, SECRET_KEY, make_fernet_key)


def admin_key(settings: Settings) -> str | None:
    """The admin's API key: the one that was set, else the stored one, else None (before the first start)."""
    return settings.api_key or read_secret(settings.state_dir, ADMIN_KEY)


def flower_password(settings: Settings) -> str:
    """Password of Flower's user ``hostler``."""
    return ensure_secret(settings.state_dir, FLOWER_PASSWORD)


#: The settings of the last start of a worker host: its database's URL holds a password.
STARTED_WITH = "started-with"
#: Keys that every host of a stack must have, by the names of their files.
SHARED = (ENGINE_KEY, SECRET_KEY)


def shared_keys(settings: Settings) -> dict[str, str]:
    """Those of the shared keys that were set or are stored here, by name. None is made."""
    given = {ENGINE_KEY: settings.engine_key, SECRET_KEY: settings.secret_key}
    found = {name: given[name] or read_secret(settings.state_dir, name) for name in SHARED}
    return {name: key for name, key in found.items() if key}


def make_admin_key() -> str:
    return f"hostler_{secrets.token_urlsafe(32)}"


def make_engine_key() -> str:
    # a first letter that no program takes for the beginning of a flag
    return f"k{secrets.token_urlsafe(32)}"


def make_fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


def read_secret(state_dir: Path, name: str) -> str | None:
    """The stored secret, or None when there is none. Raises BadState when it cannot be read or is empty."""
    path = Layout(state_dir).secrets / name
    try:
        value = path.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadState(f"{path}: {error.strerror}; run as the user that owns {state_dir}") from error
    if not value:
        raise BadState(f"{path} is empty; put the secret back from a copy, or move {state_dir} away to start anew")
    return value


def ensure_secret(state_dir: Path, name: str, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
    """The stored secret; made and stored first when there is none. Of two makers at once, the first one's stays."""
    found = read_secret(state_dir, name)
    if found is not None:
        return found
    _write(state_dir, name, make(), replace=False)
    return read_secret(state_dir, name) or ""


def store_secret(state_dir: Path, name: str, value: str) -> None:
    """Set the secret to ``value``, whatever it was."""
    if read_secret(state_dir, name) != value:
        _write(state_dir, name, value, replace=True)


def _write(state_dir: Path, name: str, value: str, *, replace: bool) -> None:
    folder = Layout(state_dir).secrets
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target, draft = folder / name, folder / f".{name}.{os.getpid()}.{secrets.token_hex(4)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.rename(target)
        else:
            # a link, not a rename: it fails when somebody else was first, and theirs may be in use already
            try:
                os.link(draft, target)
            except FileExistsError:
                return
    finally:
        draft.unlink(missing_ok=True)
