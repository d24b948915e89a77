"""Whether the program of a container was begun, lives or ended: by its daemon's word, and by the kernel's where a
daemon cannot know.

Podman writes down that a container runs only after it has begun it. One that was killed in between calls it unstarted
for ever, whatever runs, and forgets how it ends. Such a container was begun all the same, and never is again.
And it hears of an end from the conmon that keeps the container: of one that was killed it never does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from workers.backends.docker_config import ATTEMPT
from workers.backends.docker_conmon import is_kept, keepers
from workers.backends.proc import Identity, mark_of

#: The daemon's word for a container whose program it never began.
_UNSTARTED = frozenset({"created", "configured", "initialized"})
#: States in which its processes live.
_LIVING = frozenset({"running", "paused"})
#: Our word for one that its daemon says to run, or to stop, for ever.
_ABANDONED = "abandoned"
_ENDED = frozenset({"exited", "stopped", "dead", _ABANDONED})


def is_unstarted(seen: Mapping[str, Any]) -> bool:
    """Whether its program was never begun, so that it may be removed and another one made in its place."""
    return _is_called_unstarted(seen) and not _was_begun(seen)


def is_living(seen: Mapping[str, Any]) -> bool:
    return seen["State"]["Status"] in _LIVING or (_was_begun(seen) and _first_lives(seen))


def is_ended(seen: Mapping[str, Any]) -> bool:
    return seen["State"]["Status"] in _ENDED or (_was_begun(seen) and not _first_lives(seen))


def is_forgotten(seen: Mapping[str, Any]) -> bool:
    """Whether its daemon does not know that it was begun, and takes no signals for it."""
    return _is_called_unstarted(seen) and _was_begun(seen)


def is_abandoned(seen: Mapping[str, Any]) -> bool:
    """Whether it ended, and its daemon will never know."""
    return seen["State"]["Status"] == _ABANDONED


def may_be_abandoned(seen: Mapping[str, Any], first: Identity) -> bool:
    """Of a container of Podman's whose first process has ended: whether its end is told by nobody any more."""
    told = seen["State"]
    return told["Status"] in _LIVING | {"stopping"} and told.get("Pid") == first.pid and not keepers(seen["Id"])


def abandoned(seen: Mapping[str, Any]) -> dict[str, Any]:
    """The same container as it is."""
    return {**seen, "State": {**seen["State"], "Status": _ABANDONED}}


def why_unknown(seen: Mapping[str, Any]) -> str:
    """Why nobody knows how it ended; empty where its daemon does."""
    # Podman's own word for it, where it waited for the end
    if is_abandoned(seen) or seen["State"].get("ExitCode") == -1:
        return "the conmon of its container was killed"
    return "its daemon was killed as it began" if is_forgotten(seen) else ""


def _is_called_unstarted(seen: Mapping[str, Any]) -> bool:
    return seen["State"]["Status"] in _UNSTARTED


def _was_begun(seen: Mapping[str, Any]) -> bool:
    """Of one that its daemon calls unstarted. It has a first process from the middle of its start on."""
    if not _is_called_unstarted(seen) or not seen["State"].get("Pid"):
        return False
    # the runtime's own process waits in its place until it becomes the program; one that is gone may have become it
    return _first_lives(seen) or not is_kept(seen["State"]["Pid"], seen["Id"])


def _first_lives(seen: Mapping[str, Any]) -> bool:
    """Whether its first process is the program, or the init that runs it: those carry the attempt's mark."""
    pid = seen["State"]["Pid"]
    if not os.access(f"/proc/{pid}/environ", os.R_OK):
        return is_kept(pid, seen["Id"])
    return mark_of(pid) == seen["Config"]["Labels"].get(ATTEMPT)
