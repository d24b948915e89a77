"""Carries a script out: sends its requests, as impatient clients would, and breaks what it says, all in the journal."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import psycopg

from tests.faults.harness import door
from tests.faults.harness.faults import DOOR, FAULTS, RARE, SERVICES
from tests.faults.harness.faults.points import fired_by
from tests.faults.harness.following import Follow
from tests.faults.harness.journal import Journal
from tests.faults.harness.places import talking
from tests.faults.harness.places.beneath import BENEATH
from tests.faults.harness.places.beside import BREAKS_BESIDE
from tests.faults.harness.places.faults import BREAKS
from tests.faults.harness.places.sharing import BREAKS_SHARED
from tests.faults.harness.script import ASKED, Step
from tests.faults.harness.services import OF
from tests.faults.harness.stack import FaultyStack

#: A client that hears nothing for so long gives up; what became of its request it does not know.
PATIENCE_S = 12.0
#: Requests with a key are sent again while their outcome is unknown or 503, so often, so far apart.
TRIES = 4
AGAIN_S = 0.7
#: How long a request about a replica waits for its create to have told the id.
KNOWN_S = 1.0
LOOK_S = 0.1
#: The label by which a replica is known to the script that made it.
LABEL = "fault-name"
_REPLICA_OF = (
    "SELECT r.id, t.id FROM replicas r JOIN tasks t ON t.replica_id = r.id"
    " WHERE r.labels @> %s ORDER BY t.seq DESC LIMIT 1"
)
_SERVICE_OF = (
    "SELECT s.id, t.id FROM services s JOIN tasks t ON t.arguments->>'service_id' = s.id AND t.replica_id IS NULL"
    " WHERE s.labels @> %s ORDER BY t.seq DESC LIMIT 1"
)
_MEMBERS_OF = "SELECT replica_id FROM service_members WHERE service_id = %s ORDER BY created_at, replica_id"
_EVERY = FAULTS | RARE | DOOR | SERVICES | BREAKS | BENEATH | BREAKS_BESIDE | BREAKS_SHARED
_HEADERS = ("content-type", "location", "idempotency-replayed", "retry-after")


class Driver:
    """Drives one stack, seed after seed."""

    def __init__(self, stack: FaultyStack, journal: Journal) -> None:
        self.stack = stack
        self.journal = journal
        self._run = 0
        self._follows: list[Follow] = []
        self._replicas: dict[str, str] = {}
        self._services: dict[str, str] = {}
        self._tasks: dict[str, str] = {}
        self._known = threading.Condition()

    def carry_out(self, steps: list[Step]) -> None:
        """All steps in their time; returns when every answer is in and every fault is healed."""
        self._run += 1
        self._replicas, self._services, self._tasks = {}, {}, {}
        began = time.monotonic()
        with ThreadPoolExecutor(64) as pool:
            waiting = [pool.submit(self._break, step, began) for step in steps if step.what not in ASKED]
            for step in steps:
                if step.what not in ASKED:
                    continue
                _sleep_until(began + step.at_s)
                if step.what == "follow":
                    waiting.append(pool.submit(self._follow, step.arguments))
                    continue
                if step.what == "ask":
                    waiting.append(pool.submit(self._ask_model, step.arguments))
                    continue
                waiting.append(pool.submit(self._ask, step.arguments))
                if "again_s" in step.arguments:
                    waiting.append(pool.submit(self._ask, step.arguments, step.arguments["again_s"]))
            for one in waiting:
                one.result()

    def follows(self) -> list[Follow]:
        """Those who follow a log since this seed began; they are the caller's to close."""
        found, self._follows = self._follows, []
        return found

    def send(
        self, method: str, path: str, body: Any = None, key: str | None = None, wait_s: float | None = None
    ) -> tuple[int, Any]:
        """One request and its answer, both in the journal; status 0 when it was lost."""
        number = self.journal.request(method, path, body, key)
        headers = {"X-API-Key": self.stack.facts.api_key, "Content-Type": "application/json"}
        # by it the checker knows the tasks and events of each request, also when its answer was lost
        headers |= {"X-Request-Id": self.journal.request_id(number)}
        headers |= {"Idempotency-Key": key} if key else {}
        headers |= {"Prefer": f"wait={wait_s:g}"} if wait_s is not None else {}
        connection = http.client.HTTPConnection(urlsplit(self.stack.url).netloc, timeout=PATIENCE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            raw = answer.read()
            is_text = answer.headers.get_content_type() == "text/plain"
            found = raw.decode() if is_text else json.loads(raw) if raw else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.journal.write("lost", id=number, why=f"{type(error).__name__}: {error}")
            return 0, None
        finally:
            connection.close()
        told = {name: answer.headers[name] for name in _HEADERS if answer.headers.get(name)}
        self.journal.write("answer", id=number, status=answer.status, body=found, headers=told)
        return answer.status, found

    def _ask(self, act: Mapping[str, Any], delay_s: float = 0) -> None:
        time.sleep(delay_s)
        path = self._resolve(act) if act.get("pool") in self.stack.pools else None
        if path is None:
            self.journal.write("skipped", act=act)
            return
        key = self._named(act["key"]) if act.get("key") else None
        body = act["body"]
        if act.get("kind") == talking.KIND:
            body = talking.with_command(body, self.stack.folder)
        if "makes" in act:
            body = {**body, "labels": {LABEL: self._named(act["makes"])}}
        for _ in range(TRIES if key else 1):
            status, answer = self.send(act["method"], path, body, key, act.get("wait_s"))
            self._learn(act, answer)
            # 409 with a key: the first one's transaction is still open
            if status not in (0, 409, 503) or (status == 409 and (answer or {}).get("code") != "in_flight"):
                return
            time.sleep(AGAIN_S)

    def _ask_model(self, act: Mapping[str, Any]) -> None:
        named = None
        if act["by"] in ("replica", "proxy", "service"):
            path = "{service}" if act["by"] == "service" else "{id}"
            named = self._resolve({**act, "path": path})
            if named is None:
                self.journal.write("skipped", act=act)
                return
        key = self.stack.limited_key if act["key"] == "limited" else self.stack.facts.api_key
        door.ask(self.stack.url, self.journal, act, named, key)

    def _follow(self, act: Mapping[str, Any]) -> None:
        replica = self._resolve({**act, "path": "{id}"})
        if replica is None:
            self.journal.write("skipped", act=act)
        else:
            self._follows.append(Follow(self.stack.url, self.stack.facts.api_key, replica, self.journal))

    def _named(self, text: str) -> str:
        return f"{self.journal.seed}-{self._run}-{text}"

    def _resolve(self, act: Mapping[str, Any]) -> str | None:
        path, name = str(act["path"]), act.get("about")
        if "{" not in path:
            return path
        of_service = act.get("of") == OF
        ids = self._services if of_service else self._replicas
        known = self._tasks if "{task}" in path else ids
        deadline = time.monotonic() + KNOWN_S
        while name not in known:
            with self._known:
                self._known.wait_for(lambda: name in known, LOOK_S)
            if name not in known:
                # its create still waits, or its answer was lost
                self._look_up(str(name), _SERVICE_OF if of_service else _REPLICA_OF, ids)
            if time.monotonic() > deadline:
                return None
        found = ids[str(name)]
        if "{member}" in path:
            member = self._member(found, int(act["pick"]))
            return path.replace("{member}", member) if member else None
        return path.replace("{task}", self._tasks.get(str(name), "")).replace("{service}", found).replace("{id}", found)

    def _look_up(self, name: str, query: str, ids: dict[str, str]) -> None:
        found = self._rows(query, json.dumps({LABEL: self._named(name)}))
        if found:
            with self._known:
                ids.setdefault(name, found[0][0])
                self._tasks.setdefault(name, found[0][1])

    def _member(self, service: str, pick: int) -> str | None:
        found = self._rows(_MEMBERS_OF, service)
        return str(found[pick % len(found)][0]) if found else None

    def _rows(self, query: str, *values: str) -> list[Any]:
        try:
            with self.stack.sql() as connection:
                return connection.execute(query, values).fetchall()
        except psycopg.Error:
            return []

    def _learn(self, act: Mapping[str, Any], body: Any) -> None:
        of_service = act.get("of") == OF
        made = body.get("service_id" if of_service else "replica_id") if isinstance(body, dict) else None
        if not made or "{member}" in act["path"]:
            return
        name = act.get("makes") or act.get("about")
        with self._known:
            if act.get("makes"):
                (self._services if of_service else self._replicas).setdefault(name, made)
            if body.get("task_id"):
                self._tasks[name] = body["task_id"]
            self._known.notify_all()

    def _break(self, step: Step, began: float) -> None:
        fault = _EVERY[step.what]
        _sleep_until(began + step.at_s)
        hit = fault.inject(self.stack, step.arguments)
        self.journal.write("fault", name=step.what, target=step.arguments, hit=hit)
        # what needs no time is healed with the next step of everybody: at once
        _sleep_until(began + step.at_s + float(step.arguments.get("for_s", HEALED_S)))
        fault.heal(self.stack, step.arguments, hit)
        more = {"fired": fired_by(self.stack, hit)} if "token" in hit else {}
        self.journal.write("heal", name=step.what, target=step.arguments, **more)


#: Faults that end by themselves are over after this long (an armed failpoint that nobody passed is taken away).
HEALED_S = 2.0


def _sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))
