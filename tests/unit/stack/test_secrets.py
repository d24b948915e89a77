from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from app.settings import Settings
from app.stack import secrets
from app.stack.errors import BadState


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({}, state_dir=tmp_path / "state")


def test_each_is_made_once_and_closed(settings: Settings) -> None:
    made = (secrets.postgres_password, secrets.engine_key, secrets.secret_key, secrets.flower_password)
    first = [make(settings) for make in made]
    assert first == [make(settings) for make in made]
    assert len(set(first)) == len(first)
    folder = settings.state_dir / "secrets"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    Fernet(secrets.secret_key(settings))


def test_many_makers_at_once_agree(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: secrets.engine_key(settings), range(32)))
    assert len(made) == 1
    assert os.listdir(settings.state_dir / "secrets") == ["engine-key"]


def test_what_is_set_goes_before_what_is_stored(tmp_path: Path) -> None:
    engine, secret = "e" * 16, "s" * 43 + "="
    settings = Settings.load({}, state_dir=tmp_path, engine_key=engine, secret_key=secret, api_key="mine")
    assert (secrets.engine_key(settings), secrets.secret_key(settings)) == (engine, secret)
    assert secrets.admin_key(settings) == "mine"
    assert not (tmp_path / "secrets").exists()


def test_the_admin_key_is_not_made_by_reading(settings: Settings) -> None:
    assert secrets.admin_key(settings) is None
    secrets.store_secret(settings.state_dir, secrets.ADMIN_KEY, "one")
    secrets.store_secret(settings.state_dir, secrets.ADMIN_KEY, "two")
    assert secrets.admin_key(settings) == "two"
    assert len(secrets.make_admin_key()) >= 32
    assert secrets.make_admin_key().startswith("hostler_")


def test_an_emptied_secret_is_told_and_not_replaced(settings: Settings) -> None:
    secrets.engine_key(settings)
    path = settings.state_dir / "secrets" / "engine-key"
    path.write_text("")
    with pytest.raises(BadState, match="is empty"):
        secrets.engine_key(settings)
    assert path.read_text() == ""
