"""Follow what a task does to a service, from the answer of the request to its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from hostler.cli.following import LOOK_S, PAGE, log_tail
from hostler.cli.options import Session
from hostler.cli.progress import Progress
from hostler.cli.show import talk
from hostler.cli.text import parse_time
from hostler.errors import ServiceFailed, TimedOut
from hostler.waiting import TASK_ENDED, service_failure
from hostler.wire import RESTART_S

Json = dict[str, Any]
#: Kinds of events that say only what the replicas' own lines and the last line say already.
_TOLD_OTHERWISE = ("service_created", "task_")


class ServiceStory:
    """What is decided about a service, and how its replicas move: each step given once."""

    def __init__(self, session: Session, service_id: str) -> None:
        self._client = session.client
        self._service_id = service_id
        self._last: str | None = None
        self._given: set[str] = set()
        self._stood: dict[str, tuple[Any, ...]] = {}
        self._ready: tuple[Any, Any] | None = None

    def skip(self) -> ServiceStory:
        """Take what happened so far as known."""
        deque(self.news(), maxlen=0)
        return self

    def news(self) -> Iterator[tuple[str, Any]]:
        """(what happened since the last time, when)."""
        for event in self._events():
            if not str(event.get("kind")).startswith(_TOLD_OTHERWISE):
                words = [str(event["kind"]).removeprefix("service_").replace("_", " "), event.get("message")]
                yield ": ".join(str(word) for word in words if word), parse_time(event.get("at"))
        status = self._client.service_status(self._service_id)
        for replica in status.get("replica_statuses") or []:
            stands = replica.get("status"), replica.get("reason")
            if self._stood.get(str(replica.get("replica_id"))) != stands:
                self._stood[str(replica.get("replica_id"))] = stands
                yield _moved(replica), None
        ready = status.get("healthy_replicas"), status.get("total_replicas")
        if ready != self._ready:
            self._ready = ready
            yield f"{ready[0]} of {ready[1]} ready", None

    def _events(self) -> Iterator[Json]:
        while True:
            body = self._client.service_events(self._service_id, cursor=self._last, limit=PAGE)
            for event in body.get("events") or []:
                self._last = str(event.get("id"))
                if self._last not in self._given:
                    self._given.add(self._last)
                    yield event
            if not body.get("next_cursor"):
                return


def follow_service(
    session: Session, service_id: str, task_id: str, *, timeout_s: float | None, story: ServiceStory | None = None
) -> Json:
    """The service's record once the task has brought it to what was asked for, showing each step on the way.

    Raises ServiceFailed with reason and the failed replica's last lines as soon as that failed, TimedOut after
    ``timeout_s`` seconds. Ctrl-C leaves the work going on and says how to go on watching.
    """
    try:
        task = _follow(session, service_id, task_id, timeout_s, story or ServiceStory(session, service_id))
    except KeyboardInterrupt:
        talk(f"\nit goes on: hostler service wait {service_id}; to end it: hostler service stop {service_id}")
        raise
    service = session.client.get_service(service_id)
    if task.get("state") != "succeeded":
        raise failure(session, service, task)
    return service


def failure(session: Session, service: Json, task: Json) -> ServiceFailed:
    """Why the task did not succeed, with the end of a failed replica's log."""
    why = {**service, **{name: task[name] for name in ("reason", "message") if task.get(name)}}
    if task.get("state") == "cancelled" and not why.get("message"):
        why["message"] = "the task was cancelled"
    failed = [one for one in service.get("replicas") or [] if one.get("reason")]
    return service_failure(why, log_tail=log_tail(session, str(failed[-1]["replica_id"])) if failed else "")


def _follow(session: Session, service_id: str, task_id: str, timeout_s: float | None, story: ServiceStory) -> Json:
    client = session.client
    # what was asked for goes on while the API is restarted, and so does watching it
    client.outage_s = RESTART_S
    began = time.monotonic()
    with Progress(f"service {service_id}") as progress:
        while True:
            passed_s = time.monotonic() - began
            left_s = float("inf") if timeout_s is None else timeout_s - passed_s
            look_s = min(LOOK_S[1], max(LOOK_S[0], passed_s / 10), max(0.0, left_s))
            looked_at = time.monotonic()
            task = client.get_task(task_id, wait_s=look_s)
            for line, at in story.news():
                progress.step(line, at)
            if task.get("state") in TASK_ENDED:
                return task
            if left_s <= 0:
                raise TimedOut(
                    f"service {service_id} is not there after {timeout_s:g} s; it goes on",
                    hint=f"hostler service status {service_id}",
                )
            # a server that answers a long poll at once must not be asked without pause
            time.sleep(max(0.0, min(0.2, left_s) - (time.monotonic() - looked_at)))


def _moved(replica: Json) -> str:
    reason = replica.get("reason") and f"({replica['reason']})"
    words = [f"replica {replica.get('replica_id')}", replica.get("status"), reason, replica.get("message")]
    return " ".join(str(word) for word in words if word)
