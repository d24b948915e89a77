"""Text from servers, made harmless for a terminal, and times and durations as people read them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

# escape sequences whole (CSI, OSC and other strings, single escapes), so that no "[31m" is left behind
_SEQUENCES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]P^_X].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]", re.DOTALL)
# C0 but tab and newline, DEL, C1, and the marks that reorder or hide what is read
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60))


def clean_block(text: object) -> str:
    """``text`` without what a terminal would obey; lines and tabs stay."""
    return _CONTROLS.sub("", _SEQUENCES.sub("", str(text).replace("\r\n", "\n")))


def clean(text: object) -> str:
    """``text`` on one line, without what a terminal would obey."""
    return " ".join(clean_block(text).split("\n")).replace("\t", " ").strip()


def escape_json(text: str) -> str:
    """JSON source in which every character that a terminal would obey is written as ``\\uXXXX``: same value."""
    return re.sub(
        r"[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]", lambda match: f"\\u{ord(match[0]):04x}", text
    )


def parse_time(text: object) -> datetime | None:
    """An aware time from an ISO 8601 text; None when it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def age(text: object) -> str:
    """How long ago ``text`` (a time) was: ``12s``, ``3m``, ``2d4h``."""
    moment = parse_time(text)
    # a server's clock may be ahead of ours
    return "" if moment is None else coarse(max(0.0, (datetime.now(UTC) - moment).total_seconds()))


def coarse(seconds: float) -> str:
    """A duration in at most two units, for columns: ``42s``, ``3m``, ``2h5m``, ``4d``."""
    if seconds < 60:
        return f"{int(seconds)}s"
    for index, (unit, size) in enumerate(_UNITS):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            lower = _UNITS[index + 1] if index + 1 < len(_UNITS) else None
            second = rest // lower[1] if lower and whole < 10 else 0
            return f"{whole}{unit}" + (f"{second}{lower[0]}" if lower and second else "")
    return f"{int(seconds)}s"


def fine(seconds: float) -> str:
    """A duration as it is measured: ``13 ms``, ``2.41 s``, ``3 min 5 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s"
