"""Where the database and the broker are: set by the user, or derived from the state dir. Cheap to import."""

from __future__ import annotations

from urllib.parse import quote

from app.settings import Settings
from app.stack.layout import POSTGRES_PORT, Layout
from app.stack.secrets import postgres_password

DRIVER = "postgresql+psycopg"
ROLE = DATABASE = "hostler"


def database_url(settings: Settings) -> str:
    """URL for SQLAlchemy, holding the password. ``postgres://`` and ``postgresql://`` mean psycopg 3 too."""
    if settings.database_url:
        return normalise(settings.database_url)
    folder = quote(str(Layout(settings.state_dir).postgres_sockets), safe="/")
    password = quote(postgres_password(settings), safe="")
    return f"{DRIVER}://{ROLE}:{password}@/{DATABASE}?host={folder}&port={POSTGRES_PORT}"


def broker_url(settings: Settings) -> str:
    """URL for Celery. The embedded Redis listens on a socket only."""
    if settings.broker_url:
        return settings.broker_url
    return "redis+socket://" + quote(str(Layout(settings.state_dir).redis_socket), safe="/")


def embeds_postgres(settings: Settings) -> bool:
    return not settings.database_url


def embeds_redis(settings: Settings) -> bool:
    return not settings.broker_url


def normalise(url: str) -> str:
    """The URL with our driver named: SQLAlchemy before 2.1 and users mean different ones by ``postgresql://``."""
    scheme, mark, rest = url.partition("://")
    if mark and scheme in ("postgres", "postgresql"):
        return f"{DRIVER}://{rest}"
    return url
