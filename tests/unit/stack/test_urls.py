from __future__ import annotations

from pathlib import Path

import pytest
from kombu.utils.url import parse_url
from sqlalchemy import make_url

from app.settings import Settings
from app.stack.urls import broker_url, database_url, normalise


@pytest.mark.parametrize(
    "given, wanted",
    [
        ("postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("postgresql://u:p@h/d?sslmode=require", "postgresql+psycopg://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg://h/d"),
        ("postgresql+asyncpg://h/d", "postgresql+asyncpg://h/d"),
    ],
)
def test_the_driver_is_named(given: str, wanted: str) -> None:
    assert normalise(given) == wanted


@pytest.mark.parametrize("name", ["s", "with space", "100%", "a&b=c?d#e", "ü"])
def test_embedded_urls_survive_any_path(name: str) -> None:
    state = Path("/tmp") / name
    settings = Settings.load({}, state_dir=state)
    # only the derived form is looked at: nothing is written below /tmp
    url = make_url(database_url_with_password(settings, "p@ss/word%"))
    assert url.query["host"] == str(state / "run")
    assert (url.username, url.password, url.database) == ("hostler", "p@ss/word%", "hostler")
    assert parse_url(broker_url(settings))["virtual_host"].endswith(f"{name}/run/redis.sock")


def test_what_is_given_is_used() -> None:
    settings = Settings.load({}, database_url="postgres://h/d", broker_url="amqps://b")
    assert database_url(settings) == "postgresql+psycopg://h/d"
    assert broker_url(settings) == "amqps://b"


def database_url_with_password(settings: Settings, password: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.stack.urls.postgres_password", lambda _: password)
        return database_url(settings)
