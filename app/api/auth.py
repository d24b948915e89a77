"""Who asks: the request id, the API key, and whether its role may use the route."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, Response, current_app, g, request

from app.errors import Forbidden, Malformed, Unauthenticated
from app.log import request_id
from app.usecases import keys
from app.usecases.context import Actor, Context

View = TypeVar("View", bound=Callable[..., Any])

#: Role of a route that needs no key.
OPEN = "open"
REQUEST_ID = re.compile(r"[A-Za-z0-9._:@/+=-]{1,128}")
#: Longer ones are no keys; hashing them would only cost time.
LONGEST_KEY = 512


def allow(role: str, *also: str) -> Callable[[View], View]:
    """Mark a view with the roles of which any may use it. A route without a mark is closed to all but admins."""

    def mark(view: View) -> View:
        view.hostler_roles = (role, *also)  # type: ignore[attr-defined]
        return view

    return mark


def roles_of(endpoint: str | None) -> tuple[str, ...]:
    """The roles of which the route of ``endpoint`` asks for one."""
    view = current_app.view_functions.get(endpoint or "")
    found: tuple[str, ...] = getattr(view, "hostler_roles", ("admin",))
    return found


def context() -> Context:
    """The process's settings, database and doorbell."""
    found: Context = current_app.extensions["hostler"]
    return found


def actor() -> Actor:
    """Who asks; only on routes that need a key."""
    found: Actor = g.actor
    return found


def install(app: Flask) -> None:
    """Check every request before its view, and name it in its answer."""
    app.before_request(_name_request)
    app.before_request(_check_key)
    app.after_request(_return_name)


def _name_request() -> None:
    wanted = request.headers.get("X-Request-Id", "")
    g.request_id_given = bool(REQUEST_ID.fullmatch(wanted))
    g.request_id = wanted if g.request_id_given else secrets.token_hex(8)
    request_id.set(g.request_id)


def _check_key() -> None:
    if request.endpoint is None:
        # an unknown path: strangers learn nothing about what exists below /api
        if request.path.startswith("/api/"):
            _authenticate()
        return
    roles = roles_of(request.endpoint)
    if roles[0] != OPEN:
        g.actor = _authenticate()
        if not any(keys.may(g.actor.role, role) for role in roles):
            needed = " or ".join(roles)
            raise Forbidden(f"This needs a key of role {needed}; yours has role {g.actor.role}. Ask an admin for one.")
    if b"%00" in request.query_string or "\0" in request.path:
        raise Malformed("The address holds a NUL character. Send it without.")


def _authenticate() -> Actor:
    raw = key_from_request()
    if not raw:
        raise Unauthenticated()
    found = keys.authenticate(context(), raw, request_id=g.request_id) if len(raw) <= LONGEST_KEY else None
    if found is None:
        raise Unauthenticated("Bad API key: it is unknown, revoked or expired. `hostler key list` shows the keys.")
    return found


def key_from_request() -> str | None:
    """The key from X-API-Key, a Bearer token or a Basic password, whichever comes first."""
    header = request.headers.get("X-API-Key")
    if header:
        return _as_utf8(header)
    credentials = request.authorization
    if credentials is None:
        return None
    if credentials.type == "bearer":
        return _as_utf8(credentials.token or "")
    if credentials.type == "basic":
        return credentials.password
    return None


def _as_utf8(header: str) -> str:
    # WSGI hands bytes over as Latin-1; a key is hashed as it was sent
    return header.encode("latin-1", "replace").decode("utf-8", "replace")


def _return_name(response: Response) -> Response:
    response.headers["X-Request-Id"] = g.get("request_id", "")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
