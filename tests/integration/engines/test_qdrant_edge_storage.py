"""What is there after the small server over Qdrant's engine ended, however it did."""

from __future__ import annotations

import http.client
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from app.engines.registry import engine
from tests.support.engines import HOST, Running, running, wait_until
from tests.support.qdrant_edge import SIZE, VECTOR, ask, make, must
from workers.probes.http import probe_once

Start = Callable[..., Running]
DATA = "data"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start it, each time on the same storage."""
    with ExitStack() as exits:

        def start(*, ready: bool = True) -> Running:
            folder = tmp_path / str(len(list(tmp_path.glob("[0-9]*"))))
            it = exits.enter_context(running(engine("qdrant-edge"), folder, request={"data_dir": tmp_path / DATA}))
            if ready:
                it.wait_ready()
            return it

        yield start


def test_one_wrong_point_keeps_the_whole_batch_out_for_good(start: Start) -> None:
    """The engine itself would keep those before it, and again from its log at the next start."""
    first = start()
    at = make(first, "all")
    batch = [{"id": n, "vector": VECTOR} for n in range(10)]
    batch[5] = {"id": 5, "vector": [1.0]}
    assert ask(first, "PUT", f"{at}/points", {"points": batch})[0] == 400
    assert must(first, "POST", f"{at}/points/count", {}) == {"count": 0}
    first.process.kill()
    first.wait_exit()
    assert must(start(), "POST", f"{at}/points/count", {}) == {"count": 0}


def test_an_end_on_request_keeps_everything(start: Start) -> None:
    first = start()
    at = make(first, "kept", "Cosine")
    must(first, "PUT", f"{at}/points", {"points": [{"id": 1, "vector": [0, 3, 4], "payload": {"a": 1}}]})
    must(first, "PUT", f"{at}/index", {"field_name": "a", "field_schema": "integer"})
    first.process.send_signal(signal.SIGTERM)
    assert first.wait_exit() == 0
    again = start()
    [point] = must(again, "POST", f"{at}/points", {"ids": [1], "with_vector": True})
    assert point == {"id": 1, "payload": {"a": 1}, "vector": pytest.approx([0, 0.6, 0.8])}
    info = must(again, "GET", at)
    assert (info["config"]["params"]["vectors"]["distance"], info["payload_schema"]["a"]["data_type"]) == (
        "Cosine",
        "integer",
    )


class Writer:
    """Writes batches and deletes them, one request after the other; what was answered is settled."""

    SIZE = 20

    def __init__(self, number: int, at: str) -> None:
        self.at, self.base = at, number * 10**9
        #: batch -> whether it must be there; one that was in flight when it ended is in none
        self.settled: dict[int, bool] = {}
        self.in_flight: int | None = None
        self.answered = 0

    def run(self, it: Running, over: threading.Event) -> None:
        batch = max(self.settled, default=-1) + 1
        while not over.is_set():
            ids = self.ids(batch)
            delete = batch % 3 == 2 and self.settled.get(batch - 1)
            target = batch - 1 if delete else batch
            self.in_flight = target
            try:
                if delete:
                    status, _ = ask(it, "POST", f"{self.at}/points/delete", {"points": self.ids(target)})
                else:
                    points = [{"id": one, "vector": [one % 7, 1, 2], "payload": {"batch": batch}} for one in ids]
                    status, _ = ask(it, "PUT", f"{self.at}/points", {"points": points})
            except (OSError, http.client.HTTPException):
                self.settled.pop(target, None)
                return
            assert status == 200
            self.settled[target] = not delete
            self.in_flight = None
            self.answered += 1
            batch += 1

    def ids(self, batch: int) -> list[int]:
        return [self.base + batch * self.SIZE + one for one in range(self.SIZE)]

    def check(self, it: Running) -> None:
        for batch, there in self.settled.items():
            found = must(it, "POST", f"{self.at}/points", {"ids": self.ids(batch), "with_payload": True})
            assert len(found) == (self.SIZE if there else 0), (batch, there, len(found))
        if self.in_flight is not None:
            # all of it or nothing
            found = must(it, "POST", f"{self.at}/points", {"ids": self.ids(self.in_flight)})
            assert len(found) in (0, self.SIZE)
            self.settled[self.in_flight] = bool(found)
            self.in_flight = None


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_killed_at_any_moment_it_has_what_it_answered(start: Start) -> None:
    """Three writers at once, a collection that comes and goes, twelve deaths of SIGKILL, each at another moment."""
    it = start()
    writers = [Writer(n, make(it, f"c{n % 2}") if n < 2 else f"/collections/c{n % 2}") for n in range(3)]
    for death in range(12):
        over = threading.Event()
        wanted = sum(writer.answered for writer in writers) + 20 + 7 * death
        threads = [threading.Thread(target=writer.run, args=(it, over)) for writer in writers]
        threads.append(threading.Thread(target=_come_and_go, args=(it, over)))
        for thread in threads:
            thread.start()
        wait_until(partial(_have_answered, writers, wanted), "writes", 20)
        os.kill(it.process.pid, signal.SIGKILL)
        over.set()
        for thread in threads:
            thread.join(20)
        it.wait_exit()
        it = start()
        for writer in writers:
            writer.check(it)
        whole = must(it, "GET", "/collections/coming/exists")["exists"]
        assert not whole or must(it, "POST", "/collections/coming/points/count", {})["count"] in (0, 1)
    assert sum(writer.answered for writer in writers) > 500


def _have_answered(writers: list[Writer], wanted: int) -> bool:
    return sum(one.answered for one in writers) >= wanted


def _come_and_go(it: Running, over: threading.Event) -> None:
    try:
        while not over.is_set():
            ask(it, "PUT", "/collections/coming", {"vectors": {"size": SIZE, "distance": "Dot"}})
            ask(it, "PUT", "/collections/coming/points", {"points": [{"id": 1, "vector": VECTOR}]})
            ask(it, "DELETE", "/collections/coming")
    except (OSError, http.client.HTTPException):
        return


def test_two_never_have_the_same_storage_open(start: Start) -> None:
    first = start()
    at = make(first, "one")
    second = start(ready=False)
    wait_until(lambda: "which another process has open" in second.log, "the second to wait")
    assert not probe_once(second.target()).ok
    must(first, "PUT", f"{at}/points", {"points": [{"id": 1, "vector": VECTOR}]})
    first.process.kill()
    first.wait_exit()
    second.wait_ready()
    assert must(second, "POST", f"{at}/points/count", {}) == {"count": 1}


def test_who_waits_for_the_storage_ends_when_told(start: Start) -> None:
    start()
    second = start(ready=False)
    wait_until(lambda: "which another process has open" in second.log, "the second to wait")
    second.process.send_signal(signal.SIGTERM)
    assert second.wait_exit() == -signal.SIGTERM


def test_what_a_killed_create_or_delete_left_is_cleared(start: Start, tmp_path: Path) -> None:
    first = start()
    make(first, "whole")
    first.process.kill()
    first.wait_exit()
    [folder] = (tmp_path / DATA / "collections").iterdir()
    left = folder.with_name("0" * 16)
    (left / "shard" / "wal").mkdir(parents=True)
    assert must(start(), "GET", "/collections") == {"collections": [{"name": "whole"}]}
    assert not left.exists()


def test_a_damaged_collection_is_told_and_not_passed_over(start: Start, tmp_path: Path) -> None:
    first = start()
    make(first, "broken")
    first.process.send_signal(signal.SIGTERM)
    first.wait_exit()
    [folder] = (tmp_path / DATA / "collections").iterdir()
    (folder / "collection.json").write_text("{")
    second = start(ready=False)
    assert second.wait_exit() == 2
    assert f"cannot open the collection in {folder}" in second.log
    cause = engine("qdrant-edge").cause_of_exit(second.log)
    assert cause is not None
    assert str(folder) in cause.message


def test_callers_beyond_what_it_may_open_wait_and_break_nothing(start: Start) -> None:
    it = start()
    at = make(it, "crowded")
    resource.prlimit(it.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    with ExitStack() as crowd:
        callers = [crowd.enter_context(socket.create_connection((HOST, it.port), 5)) for _ in range(60)]
        for caller in callers:
            caller.sendall(b"GET /rea")
        wait_until(lambda: len(os.listdir(f"/proc/{it.process.pid}/fd")) >= 40, "all its files to be open")
        assert it.process.poll() is None
    assert must(it, "POST", f"{at}/points/count", {}) == {"count": 0}
