"""The knobs of the mock backend: pool ``options`` and a replica's ``backend_options``. Durations are seconds."""

from __future__ import annotations

from typing import Any


def _seconds(doc: str) -> dict[str, Any]:
    return {"type": "number", "minimum": 0, "description": doc}


def _failure(doc: str) -> dict[str, Any]:
    how = "a probability such as 0.2, a count such as 3, or `always`"
    return {
        "description": f"{doc}: {how}.",
        "oneOf": [{"type": "number", "minimum": 0}, {"const": "always"}, {"type": "boolean"}],
    }


OPTIONS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "seed": {"type": "integer", "description": "Probabilities fall the same for the same seed and name."},
        "launch_delay_s": _seconds("How long the launch itself takes."),
        "queue_s": _seconds("How long it is queued before it runs."),
        "ready_delay_s": _seconds("From running to answering."),
        "stop_delay_s": _seconds("From being asked to end to ending; forced or out of grace it ends at once."),
        "exit_after_s": _seconds("It ends by itself, so long after it began to run."),
        "exit_code": {"type": "integer", "minimum": 0, "maximum": 255, "description": "The code it then ends with."},
        "flap_period_s": _seconds("Once ready it answers for so long, then not for as long, and so on."),
        "fail_launch": _failure("Launches are refused (a count is per replica, over its attempts)"),
        "fail_retryable": {"type": "boolean", "description": "Refused launches may be tried again as they are."},
        "fail_inspect": _failure("Looks do not see it (drawn for each second of its life)"),
        "fail_stop": _failure("Stops fail"),
        "fail_fingerprint": {"type": "boolean", "description": "The backend itself does not answer."},
        "lose_handle": {"enum": ["absent", "unknown"], "description": "It is forgotten: looks say this of it."},
        "lose_after_s": _seconds("When it is forgotten, after it began to run."),
        "unreachable_after_s": _seconds("The backend cannot be asked about it, so long after it began to run."),
        "unreachable_for_s": _seconds("How long that lasts; without it for ever."),
    },
}
