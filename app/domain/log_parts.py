"""What of a part of a log may go to its readers: whole lines, so that no secret is cut in two before it is masked."""

from __future__ import annotations

from collections.abc import Sequence


def bytes_to_take(data: bytes, limit_bytes: int, secrets: Sequence[bytes], *, is_over: bool) -> int:
    """How many bytes of ``data``, read with ``limit_bytes``, are whole lines; 0 while there is but a half one.

    All of it when nothing more is written. A line longer than a part is cut where no secret is.
    """
    if is_over and len(data) < limit_bytes:
        return len(data)
    lines = data.rfind(b"\n") + 1
    if lines or len(data) < limit_bytes:
        return lines
    cut = len(data) - max((len(value) for value in secrets), default=0)
    while found := [begin for value in secrets if (begin := _begin_over(data, value, cut)) is not None]:
        cut = min(found)
    return cut if cut > 0 else len(data)


def _begin_over(data: bytes, value: bytes, cut: int) -> int | None:
    """Where ``value`` begins before ``cut`` and ends behind it."""
    begin = data.find(value, max(0, cut - len(value) + 1), cut + len(value) - 1)
    return begin if 0 <= begin < cut else None
