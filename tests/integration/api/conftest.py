"""The web application on a fresh database, asked through its WSGI interface, with a key of each role."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app import create_app
from app.settings import Settings
from app.usecases import keys
from app.usecases.context import Actor, Context


@dataclass
class Caller:
    """Sends requests with one key. ``headers`` of a call win over the key."""

    client: FlaskClient
    key: str
    key_id: str = ""

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> TestResponse:
        named = {"X-API-Key": self.key} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.open(path, method=method, json=body, headers=named)

    def get(self, path: str, **headers: str) -> TestResponse:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        return self("POST", path, body, **headers)


@pytest.fixture
def web_settings(settings: Settings, tmp_path: Path) -> Settings:
    models_dir = tmp_path / "models"
    models_dir.mkdir()
    return replace(settings, models_dir=models_dir, max_wait_s=2.0)


@pytest.fixture
def admin_key(web_settings: Settings) -> str:
    key = f"admin-{secrets.token_hex(16)}"
    keys.ensure_admin_key(web_settings, key)
    return key


@pytest.fixture
def web(web_settings: Settings) -> Iterator[Flask]:
    app = create_app(web_settings)
    yield app
    app.extensions["hostler"].close()


@pytest.fixture
def ctx(web: Flask) -> Context:
    found: Context = web.extensions["hostler"]
    return found


@pytest.fixture
def anybody(web: Flask) -> FlaskClient:
    return web.test_client()


@pytest.fixture
def admin(web: Flask, admin_key: str) -> Caller:
    return Caller(web.test_client(), admin_key)


@pytest.fixture
def caller(web: Flask, ctx: Context, admin: Caller):  # type: ignore[no-untyped-def]
    """Makes a caller with a key of the given role."""

    def make(role: str) -> Caller:
        who = Actor("test", "test", "admin")
        made = keys.create(ctx, who, {"name": f"{role}-{secrets.token_hex(4)}", "role": role}, None)
        assert made.key is not None
        return Caller(web.test_client(), made.key, made.record["id"])

    return make
