"""Origins of web pages, as browsers write them into ``Origin``. Pure.

A browser sends scheme, host and port, in small letters and without a default port; only that very text is compared. It
sends ``null`` for pages that anybody could have made (files, sandboxes), so ``null`` is no origin to be listed.
"""

from __future__ import annotations

import re

ANY = "*"
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9_]([a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
)
#: More do not fit a line of the gateway's configuration (64 words).
MOST = 40


def parse_origins(text: str) -> tuple[str, ...]:
    """The origins in ``text``, between commas, as browsers write them; ``("*",)`` for any. Raises ValueError."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if ANY in words:
        if len(words) > 1:
            raise ValueError("* stands alone: it is any origin")
        return (ANY,)
    if len(words) > MOST:
        raise ValueError(f"more than {MOST} origins")
    return tuple(dict.fromkeys(_origin(word) for word in words))


def _origin(word: str) -> str:
    found = _ORIGIN.fullmatch(word.lower().removesuffix("/"))
    if found is None:
        raise ValueError(f"{word!r} is no origin; write scheme, host and port, such as https://app.example:8443")
    port = found["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"{word!r} has no such port")
    if port is None or port == _DEFAULT_PORTS.get(found["scheme"]):
        return f"{found['scheme']}://{found['host']}"
    return f"{found['scheme']}://{found['host']}:{int(port)}"
