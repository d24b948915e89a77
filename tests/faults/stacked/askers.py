"""Users of a model while parts of the stack die: each answer is compared, word by word, with one from before."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.faults.harness.world import replica_of
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import MOCK, Stack

PATH = "/v1/chat/completions"
MODEL = "crowd"
#: Of a stream: long enough for whatever happens to happen while it runs.
TOKENS, TOKENS_PER_S = 40, 25
#: What is behind more than the gateway's buffer is read by the slow lane.
MUCH = "so it goes " * 4000
PATIENCE_S = 20


@dataclass(frozen=True)
class Streamed:
    """One stream: whose it was, and whether all of it came, as it should be."""

    replica: str
    whole: bool
    exact: bool


@dataclass
class Askers:
    """Whole answers, streams, and whole answers by way of the slow lane, asked for without a pause."""

    url: str
    key: str
    asked: int = 0
    read_slowly: int = 0
    failed: list[str] = field(default_factory=list)
    failed_slowly: list[str] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    #: streams under way, by the replica that began to answer
    running: dict[int, str] = field(default_factory=dict)
    _expected: dict[str, str] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def learn(self) -> None:
        """What the answers are when nothing is wrong."""
        with self._client() as client:
            for content in ("whole", MUCH):
                answer = client.post(PATH, content=_body(content, 4))
                assert answer.status_code == 200, answer.text
                self._expected[content] = answer.json()["choices"][0]["message"]["content"]
            answer = client.post(PATH, content=_body("streamed", TOKENS))
            self._expected["streamed"] = answer.json()["choices"][0]["message"]["content"]

    def ask(self) -> None:
        with self._client() as client:
            while not self._over.is_set():
                said = self._whole(client, "whole", {"model": MODEL})
                self.asked += 1
                if said:
                    self.failed.append(said)

    def ask_slowly(self) -> None:
        with self._client() as client:
            while not self._over.wait(0.05):
                said = self._whole(client, MUCH, {})
                self.read_slowly += 1
                if said:
                    self.failed_slowly.append(said)

    def stream(self) -> None:
        with self._client() as client:
            while not self._over.is_set():
                self._stream(client)

    def stop(self) -> None:
        self._over.set()

    def _client(self) -> httpx2.Client:
        headers = {"X-API-Key": self.key, "Content-Type": "application/json"}
        return plain_http.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def _whole(self, client: httpx2.Client, content: str, first: dict[str, Any]) -> str:
        """What was wrong with the answer; empty when nothing was."""
        try:
            answer = client.post(PATH, content=_body(content, 4, first))
        except httpx2.TransportError as error:
            return f"{type(error).__name__}: {error}"
        if answer.status_code != 200:
            return f"{answer.status_code} {dict(answer.headers)} {answer.text}"
        said = answer.json()["choices"][0]["message"]["content"]
        return "" if said == self._expected[content] else f"other words: {said!r}"

    def _stream(self, client: httpx2.Client) -> None:
        me, replica, said, done = threading.get_ident(), "", "", False
        try:
            with client.stream("POST", PATH, content=_body("streamed", TOKENS, {"stream": True})) as answer:
                if answer.status_code != 200:
                    answer.read()
                    self.failed.append(f"a stream: {answer.status_code} {answer.text}")
                    return
                for line in answer.iter_lines():
                    done = done or line == "data: [DONE]"
                    if line.startswith("data: {"):
                        event = json.loads(line[6:])
                        replica = replica_of(event["system_fingerprint"])[0]
                        self.running[me] = replica
                        said += event["choices"][0]["delta"].get("content", "")
        except httpx2.TransportError as error:
            if not replica:
                self.failed.append(f"a stream that had not begun: {error}")
        finally:
            self.running.pop(me, None)
        if replica:
            self.streams.append(Streamed(replica, done, said == self._expected["streamed"]))


def _body(content: str, tokens: int, first: dict[str, Any] | None = None) -> str:
    """The model first, or last: behind all that is said."""
    more = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "seed": 7}
    return json.dumps({"model": MODEL, **(first or {}), **more} if first else {**more, "model": MODEL})


def crew(up: Stack, count: int = 3) -> list[str]:
    """Replicas of the model, each in the door's table."""
    knobs = {"tokens_per_s": TOKENS_PER_S, "latency_ms": 10}
    return [up.replica(**{**MOCK, "model_name": MODEL, "replica_config": {"mock": knobs}}) for _ in range(count)]


def answers(up: Stack, replica: str) -> bool:
    """It answers through the door."""
    headers = {"X-API-Key": up.key, "X-Hostler-Replica": replica}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "?"}], "max_tokens": 1}
    try:
        answer = plain_http.post(f"{up.url}{PATH}", json=body, headers=headers, timeout=PATIENCE_S, trust_env=False)
    except httpx2.TransportError:
        return False
    return answer.status_code == 200


@contextmanager
def askers(up: Stack, *, whole: int = 6, streams: int = 6) -> Iterator[Askers]:
    """At work; they have ended when the block has."""
    at_work = Askers(up.url, up.key)
    at_work.learn()
    works = [at_work.ask] * whole + [at_work.stream] * streams + [at_work.ask_slowly]
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: at_work.asked > 50 and len(at_work.running) == streams, 30, "all of them at work")
        yield at_work
    finally:
        at_work.stop()
        for thread in threads:
            thread.join(PATIENCE_S + 10)
