"""Origins as they are listed, and as browsers send them."""

from __future__ import annotations

import pytest

from app.domain.origins import MOST, parse_origins


@pytest.mark.parametrize(
    "text, origins",
    [
        ("", ()),
        ("*", ("*",)),
        ("https://app.example", ("https://app.example",)),
        (" HTTPS://App.Example/ ,http://127.0.0.1:3000", ("https://app.example", "http://127.0.0.1:3000")),
        ("https://a:443,http://a:80,http://a:443", ("https://a", "http://a", "http://a:443")),
        ("http://[::1]:8080", ("http://[::1]:8080",)),
        ("https://a\nhttps://a", ("https://a",)),
        ("chrome-extension://abcdef", ("chrome-extension://abcdef",)),
    ],
)
def test_origins_are_kept_as_browsers_write_them(text: str, origins: tuple[str, ...]) -> None:
    assert parse_origins(text) == origins


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "*,https://a",
        "https://*.example",
        "https://a/b",
        "https://a?b",
        "https://user@a",
        "//a",
        "a.example",
        "https://",
        "https://a:0",
        "https://a:70000",
        "https://a'b",
        "https://a%0d",
        "https://ä.example",
        ",".join(f"https://a{number}" for number in range(MOST + 1)),
    ],
)
def test_what_no_browser_sends_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"origin|port"):
        parse_origins(text)
