"""What ``hostler doctor`` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass

OK, WARN, FAIL = "ok", "warn", "fail"
#: Names that one line holds.
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One check. ``fix`` is what to type when it did not pass."""

    check: str
    result: str
    detail: str
    fix: str = ""

    def body(self) -> dict[str, str]:
        return asdict(self)


def some(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def one_line(error: BaseException | str) -> str:
    return " ".join(str(error).split())[:300]
