"""What `up` does for the chat when the settings name a model or a key: a service of workers, and a key of role infer.

Both are made once and then kept as the settings say: asked for again with the same settings, nothing changes.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.errors import HostlerError
from app.settings import BadSetting, Settings
from app.stack.api import Api, ApiSilent
from app.stack.errors import PartFailed
from app.stack.ports import OPEN_KEY_CHARACTERS, is_loopback

RECIPE = "inference/llama-cpp"
SHORTEST_KEY = 24
_KEY = "API_KEY (HOSTLER_CHAT_KEY)"
_WORKERS = "LLM_WORKERS (HOSTLER_CHAT_WORKERS)"
_MODEL = "LLM_MODEL_PATH (HOSTLER_CHAT_MODEL_PATH)"
#: A dead worker is replaced at once, also when it had only just begun; one that cannot start at all is not tried for
#: ever.
_RESTART = {"tries": 8, "backoff_s": 1, "backoff_max_s": 60, "stable_s": 0}

_DONE = (200, 201, 202)

Say = Callable[[str], None]


def check_chat(settings: Settings) -> None:
    """Raises BadSetting for a key or a model that cannot be, before anything is started."""
    if settings.chat_key:
        why = _unfit(settings)
        if why:
            raise BadSetting(f"{_KEY}: {why}. `openssl rand -hex 24` makes one.")
    if settings.chat_model_path != Path():
        _check_model(settings.chat_model_path)


def keep_key(settings: Settings) -> None:
    """Make the key of the chat's callers known, in place of the one that an earlier start made. Raises PartFailed."""
    if not settings.chat_key:
        return
    # it loads SQLAlchemy, which only a start needs
    from app.usecases.keys import KeyEnded, ensure_chat_key

    try:
        ensure_chat_key(settings, settings.chat_key)
    except KeyEnded as error:
        raise PartFailed(f"{_KEY}: {error}") from error
    except HostlerError as error:
        raise PartFailed(str(error)) from error


def keep_workers(settings: Settings, url: str, key: str, say: Say) -> None:
    """Have the service of workers as the settings say; what is refused is said, and the stack runs on without it."""
    model = _model(settings)
    if not model:
        if settings.chat_workers:
            say(f"{_WORKERS} asks for workers, and nothing says of which model; set LLM_MODEL_PATH")
        return
    api = Api(url, certificate=settings.tls_certificate, key=key)
    name, count = settings.chat_service, settings.chat_workers or 1
    try:
        status, found = api.ask("GET", f"/api/v1/services/{name}")
        if status == 404:
            body = {"name": name, "recipe_name": RECIPE, "replicas": count, **_wanted(settings)}
            status, found = api.ask("POST", "/api/v1/services", body)
        elif status == 200:
            # what was set for another recipe is nothing to this one
            replace = found.get("recipe_name") != RECIPE
            body = {"recipe_name": RECIPE, "replace_config": replace, **_wanted(settings)}
            status, found = api.ask("PATCH", f"/api/v1/services/{name}", body)
            if status in _DONE and settings.chat_workers:
                # how many is an operator's to change where the settings do not say
                status, found = api.ask("POST", f"/api/v1/services/{name}/scale", {"replicas": count})
    except ApiSilent as error:
        status, found = 0, {"detail": str(error)}
    if status in _DONE:
        say(f"{'chat':<15} service {name}: workers of {os.path.basename(model)}; `hostler service get {name}`")
    else:
        say(f"the chat's service {name} is not as the settings say: {found.get('detail') or status}")


def _wanted(settings: Settings) -> dict[str, Any]:
    """Merged over what an operator set beside it."""
    config: dict[str, Any] = {
        "parameters": {"model": _model(settings), "n_parallel": 1},
        # each is asked one thing at a time: who comes next waits where any of them may become idle
        "gateway": {"max_concurrency": 1},
        # another program is another revision
        "command": shlex.split(settings.llama_command) or None,
    }
    return {"config": config, "restart": _RESTART}


def _model(settings: Settings) -> str:
    """A path, or a name of the catalogue; empty where no workers are asked for, or of nothing."""
    if settings.chat_model_path != Path():
        return str(settings.chat_model_path)
    return settings.default_model if settings.chat_workers else ""


def _unfit(settings: Settings) -> str:
    key = settings.chat_key
    if key == "changeme":
        return "changeme is everybody's key"
    if len(key) < SHORTEST_KEY:
        return f"shorter than {SHORTEST_KEY} characters, which can be guessed"
    if not all("!" <= character <= "~" for character in key):
        return "a header carries only ASCII characters without a space"
    if key == settings.api_key:
        return "it is HOSTLER_API_KEY, whose role is admin; the chat's callers need one of their own"
    if len(key) < OPEN_KEY_CHARACTERS and not is_loopback(settings.host) and not settings.tls_certificate:
        return f"shorter than {OPEN_KEY_CHARACTERS} characters, and --host {settings.host} is reachable from elsewhere"
    return ""


def _check_model(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise BadSetting(f"{_MODEL}={path}: {error.strerror}; name a GGUF file") from error
    if magic != b"GGUF":
        raise BadSetting(f"{_MODEL}={path}: it is no GGUF file; name one")
