"""Settings of where a stack keeps its things, what it uses of others, its door and its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.settings.declaring import setting


@dataclass(frozen=True)
class Stack:
    state_dir: Path = setting(Path(), "Folder of everything the stack keeps (0700).")
    database_url: str = setting(
        "",
        "Postgres to use instead of the embedded one.",
        secret=True,
        form=r"postgres(ql)?(\+psycopg)?://.+",
        such_as="postgresql://USER:PASSWORD@HOST/DATABASE",
    )
    broker_url: str = setting(
        "",
        "Redis, Valkey or RabbitMQ to use instead of the embedded Redis.",
        secret=True,
        form=r"(rediss?|redis\+socket|sentinel|amqps?|pyamqp)://.+",
        such_as="redis://... or amqp://...",
    )
    namespace: str = setting(
        "",
        "Prefix in broker and node names; default: from the database's id.",
        form=r"[A-Za-z0-9_-]{1,60}",
        such_as="up to 60 letters, digits, - and _",
    )
    host: str = setting(
        "127.0.0.1",
        "Address of the gateway, the one public door.",
        form=r"[^\s/]+",
        such_as="an address or a host's name",
    )
    port: int = setting(8080, "Port of the gateway.", within=(1, 65535))
    url: str = setting("", "Where the CLI finds the API; default: through the state dir.")
    api_key: str = setting("", "Admin key to use instead of a made one (24+ characters).", secret=True)
    engine_key: str = setting(
        "",
        "Key that engines demand; default: made once, in the state dir.",
        secret=True,
        form=r"[!-~]{16,512}",
        such_as="16 or more ASCII characters without a space",
    )
    secret_key: str = setting(
        "",
        "Key that encrypts stored user values; default: made once.",
        secret=True,
        form=r"[A-Za-z0-9_-]{43}=",
        such_as="URL-safe base64 of 32 bytes",
    )
    tls_certificate: str = setting("", "PEM file; with tls_key the gateway speaks TLS.")
    tls_key: str = setting("", "PEM file of the certificate's key.")
