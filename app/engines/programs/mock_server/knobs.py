"""What can be set, with its default. The engine's ``config_schema`` documents each; a test compares the two."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would take a third of the start
if TYPE_CHECKING:
    from typing import Any

DEFAULTS: dict[str, Any] = {
    "startup_s": 0.0,
    "startup_answers_503": False,
    "latency_ms": 0.0,
    "ttft_ms": 0.0,
    "tokens_per_s": 0.0,
    "max_tokens": 16,
    "slots": 0,
    "seed": 0,
    "error_rate": 0.0,
    "hang": False,
    "hang_after_n": None,
    "busy_tokens_per_s": 0.0,
    "counters_stuck": False,
    "crash_after_n": None,
    "exit_on_start": None,
    "exit_after_s": None,
    "exit_code": 1,
    "health_fails_after_s": None,
    "health_hangs_after_s": None,
    "ignore_sigterm": False,
    "stop_s": 0.0,
    "log_lines": [],
}


class Knobs:
    """The defaults overlaid by what the replica's ``mock`` config says, as attributes."""

    startup_s: float
    startup_answers_503: bool
    latency_ms: float
    ttft_ms: float
    tokens_per_s: float
    max_tokens: int
    slots: int
    seed: int
    error_rate: float
    hang: bool
    hang_after_n: int | None
    busy_tokens_per_s: float
    counters_stuck: bool
    crash_after_n: int | None
    exit_on_start: int | None
    exit_after_s: float | None
    exit_code: int
    health_fails_after_s: float | None
    health_hangs_after_s: float | None
    ignore_sigterm: bool
    stop_s: float
    log_lines: list[str]

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.__dict__.update({**DEFAULTS, **wanted})
        lines = self.__dict__["log_lines"]
        if isinstance(lines, int):
            self.log_lines = [f"mock: log line {number} of {lines}" for number in range(1, lines + 1)]
