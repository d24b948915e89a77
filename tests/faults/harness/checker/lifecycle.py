"""The lifecycle, written down once more from the documents: what the product holds is not asked."""

from __future__ import annotations

#: state -> what it may become in one step. From every live state it may be stopped or fail.
STEPS: dict[str, frozenset[str]] = {
    "pending": frozenset({"scheduling", "stopping", "stopped", "failed"}),
    "scheduling": frozenset({"pending", "preparing", "stopping", "failed"}),
    "preparing": frozenset({"pending", "starting", "stopping", "failed"}),
    "starting": frozenset({"waiting_for_ready", "unreachable", "stopping", "failed"}),
    "waiting_for_ready": frozenset({"scheduling", "ready", "unreachable", "stopping", "failed"}),
    "ready": frozenset({"unhealthy", "unreachable", "stopping", "failed"}),
    "unhealthy": frozenset({"scheduling", "waiting_for_ready", "ready", "unreachable", "stopping", "failed"}),
    "unreachable": frozenset(
        {"scheduling", "starting", "waiting_for_ready", "ready", "unhealthy", "stopping", "failed"}
    ),
    "stopping": frozenset({"pending", "stopped", "failed"}),
    "stopped": frozenset({"pending"}),
    "failed": frozenset({"pending"}),
}
FIRST = "pending"
