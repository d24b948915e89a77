"""Who answered through the door: the model that was asked, in its own words, for a key that may ask it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.faults.harness import world
from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding

#: What a limited key may ask.
ALLOWED = "m0"
#: What a registered server calls itself.
FOREIGN = "foreign-1"
#: What the door says when no replica can: all others that begin with a 5 would be a defect.
UNAVAILABLE = (502, 503, 504)


def check_door(found: Evidence) -> Iterator[Finding]:
    for line in found.journal:
        if line["op"] == "door":
            yield from _judge_answer(found, line)
            yield from _judge_refusal(line)
            yield from _judge_rest(found, line)
        elif line["op"] == "revoked":
            yield from _judge_revoked(line)
        elif line["op"] == "told":
            told = {"path": line["path"], "headers": line["headers"]}
            yield Finding("door", "a server that is not ours was told a key", told)
        elif line["op"] == "left" and (line["found"] != 404 or line["asked"] == 200):
            told = {"found": line["found"], "asked": line["asked"]}
            yield Finding("door", "a registration did not end with its connection", told)


def _judge_answer(found: Evidence, line: dict[str, Any]) -> Iterator[Finding]:
    """Also of what broke off: what was heard was said by somebody."""
    told = _told(line)
    if any(model != line["model"] for model in line["models"]):
        yield Finding("door", "a request was answered by another model's replica", told)
    if len(line["engines"]) > 1:
        yield Finding("door", "one answer is of two engines", told)
    for engine in line["engines"]:
        if line["by"] == "registered":
            if engine != FOREIGN:
                yield Finding("door", "a request for a registered server was answered by another", told)
            continue
        if not engine.startswith("hostler-"):
            yield Finding("door", "a request was answered by an engine of another kind", told)
            continue
        replica, _ = world.replica_of(engine)
        member = found.rows.members.get(replica)
        if line.get("service") and (member is None or member.service_id != line["service"]):
            yield Finding("door", "a request for one service was answered by another's replica", told)
        if line["replica"] is not None and replica != line["replica"]:
            yield Finding("door", "a request for one replica was answered by another", told)
        if _headers(line).get("x-hostler-replica") != replica:
            yield Finding("door", "an answer names another replica than the one who made it", told)
    if line["key"] == "limited" and line["model"] != ALLOWED and line["models"]:
        yield Finding("door", "a key was answered by a model that it may not ask", told)


def _judge_refusal(line: dict[str, Any]) -> Iterator[Finding]:
    status, told = line["status"], _told(line)
    if status >= 500 and status not in UNAVAILABLE:
        yield Finding("door", f"the door answered {status}", told)
    if status in (429, 503) and "retry-after" not in _headers(line):
        yield Finding("door", f"a {status} does not say when to try again", told)
    if status >= 400 and "application/problem+json" not in _headers(line).get("content-type", ""):
        yield Finding("door", "a refusal is no problem of ours", told)


def _judge_rest(found: Evidence, line: dict[str, Any]) -> Iterator[Finding]:
    """Asked again and again until the last one: then who is ready still was not reached."""
    if not line.get("last") or line["status"] == 200:
        return
    if line["by"] == "registered":
        yield Finding("door", "a registered server is not reached when all is at rest", _told(line))
        return
    if line.get("service"):
        yield Finding("door", "a service with a ready replica is not reached when all is at rest", _told(line))
        return
    replica = found.rows.replicas.get(line["about"])
    if replica is not None and replica.state == "ready":
        yield Finding(
            "door", "a ready replica is not reached when all is at rest", {**_told(line), "about": replica.id}
        )


def _judge_revoked(line: dict[str, Any]) -> Iterator[Finding]:
    told = {"key": line["key"], "before": line["before"], "after": line["after"]}
    if line["before"] != 200:
        yield Finding("door", "a new key was not let in", told)
    if line["after"] != 401:
        yield Finding("door", "a key was let in a second after its end was acknowledged", told)


def _headers(line: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in (line.get("headers") or {}).items()}


def _told(line: dict[str, Any]) -> dict[str, Any]:
    names = (
        "by",
        "model",
        "spelled",
        "key",
        "replica",
        "service",
        "status",
        "models",
        "engines",
        "code",
        "lost",
        "headers",
    )
    return {name: line[name] for name in names if line.get(name)}
