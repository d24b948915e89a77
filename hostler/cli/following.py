"""Follow what a task does to a replica, from the answer of the request to its end."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from hostler.cli.options import Session
from hostler.cli.progress import Progress
from hostler.cli.show import talk
from hostler.cli.text import parse_time
from hostler.errors import HostlerError, ReplicaFailed, TimedOut
from hostler.waiting import LOG_TAIL_LINES, TASK_ENDED, TERMINAL, failure
from hostler.wire import RESTART_S

Json = dict[str, Any]
#: Longest answer to one look, in seconds: short at first, as most launches are, and then a tenth of the time passed.
LOOK_S = (1.0, 5.0)
PAGE = 200


class Story:
    """A replica's events, each given once. An event's id is the cursor behind it."""

    def __init__(self, session: Session, replica_id: str) -> None:
        self._session = session
        self._replica_id = replica_id
        self._last: str | None = None
        self._given: set[str] = set()

    def news(self) -> Iterator[Json]:
        """What has happened since the last time."""
        while True:
            body = self._session.client.replica_events(self._replica_id, cursor=self._last, limit=PAGE)
            for event in body.get("events") or []:
                self._last = str(event.get("id"))
                if self._last not in self._given:
                    self._given.add(self._last)
                    yield event
            if not body.get("next_cursor"):
                return

    def skip(self) -> Story:
        """Take what happened so far as known."""
        deque(self.news(), maxlen=0)
        return self


def follow_launch(
    session: Session, replica_id: str, task_id: str, *, timeout_s: float | None, story: Story | None = None
) -> Json:
    """The replica's record once the task (create or restart) has made it ready, showing each step on the way.

    Raises ReplicaFailed with reason and log tail as soon as that failed, TimedOut after ``timeout_s`` seconds. Ctrl-C
    leaves the launch running and says how to stop it.
    """
    try:
        task = follow_task(session, replica_id, task_id, timeout_s=timeout_s, story=story)
    except KeyboardInterrupt:
        talk(f"\nthe launch goes on: hostler replica wait {replica_id}; to end it: hostler replica stop {replica_id}")
        raise
    replica = session.client.get_replica(replica_id)
    if task.get("state") != "succeeded":
        raise launch_failure(session, replica, task)
    return replica


def follow_task(
    session: Session, replica_id: str, task_id: str, *, timeout_s: float | None, story: Story | None = None
) -> Json:
    """The task once it has ended, whichever way, showing the replica's steps on the way."""
    client = session.client
    # what was asked for goes on while the API is restarted, and so does watching it
    client.outage_s = RESTART_S
    began = time.monotonic()
    story = story or Story(session, replica_id)
    with Progress(f"replica {replica_id}") as progress:
        while True:
            passed_s = time.monotonic() - began
            left_s = float("inf") if timeout_s is None else timeout_s - passed_s
            look_s = min(LOOK_S[1], max(LOOK_S[0], passed_s / 10), max(0.0, left_s))
            looked_at = time.monotonic()
            task = client.get_task(task_id, wait_s=look_s)
            for event in story.news():
                _tell(progress, event)
            if task.get("state") in TASK_ENDED:
                return task
            if left_s <= 0:
                raise TimedOut(
                    f"replica {replica_id} is not there after {timeout_s:g} s (phase {task.get('phase')}); it goes on",
                    hint=f"hostler replica explain {replica_id}",
                )
            # a server that answers a long poll at once must not be asked without pause
            time.sleep(max(0.0, min(0.2, left_s) - (time.monotonic() - looked_at)))


def launch_failure(session: Session, replica: Json, task: Json) -> ReplicaFailed:
    """Why the launch did not succeed, with the end of the log."""
    replica_id = str(replica.get("replica_id"))
    told = replica
    if replica.get("status") not in TERMINAL:
        # the replica is still on its way down; the task knows already why
        told = {**replica, "status": "failed", "reason": task.get("reason"), "message": task.get("message")}
    return failure(told, log_tail=log_tail(session, replica_id))


def log_tail(session: Session, replica_id: str) -> str:
    """The last lines of its output, empty when there are none to be had."""
    try:
        return session.client.replica_logs(replica_id, tail=LOG_TAIL_LINES)
    except HostlerError:
        # the failure being told matters more than the missing logs
        return ""


def say_started(replica_id: str) -> None:
    """What to type next after a launch that was not waited for."""
    talk(f"asked for; follow it: hostler replica wait {replica_id}")


def wait_option(text: str) -> Any:
    """--wait/--no-wait, left open (None) when neither is given."""
    return click.option("--wait/--no-wait", default=None, help=text)


def _tell(progress: Progress, event: Json) -> None:
    # how the task goes is told by the replica's own steps
    if event.get("to_state") or not str(event.get("kind")).startswith("task_"):
        what = event.get("to_state") or event.get("kind")
        words = [what, event.get("reason") and f"({event['reason']})", event.get("message")]
        progress.step(" ".join(str(word) for word in words if word), parse_time(event.get("at")))
