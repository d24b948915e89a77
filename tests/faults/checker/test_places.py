"""What the checker must find in other places: each thing spoiled alone, and nothing where all is right.

Replica ``A`` is ready in a cluster, ``C`` on this host; an engine that is elsewhere is a process as those of this host
are, in a folder of its own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.faults.checker.story import A, B, C, Story, free_port, name_of
from tests.faults.harness import far_world
from tests.faults.harness.facts import PlaceFacts
from tests.faults.harness.far_world import Connection, Container, Job
from tests.support.embedded import wait_until

PREFIX = "hostler-test-"
_ENGINE = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"


@dataclass
class Elsewhere:
    """What the parts would say."""

    story: Story
    jobs: list[Job] | None
    containers: list[Container] | None
    connections: list[Connection]
    folder: Path
    volumes: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)

    def engine(self, replica: str, port: int, device: str = "/") -> subprocess.Popen[bytes]:
        """An engine of that replica, in the place of a cluster, with a GPU of a node."""
        environ = {"HOSTLER_MARK": name_of(replica), "HOME": str(self.folder), "PATH": os.environ["PATH"]}
        environ["SLURMD_NODENAME"], _, environ["CUDA_VISIBLE_DEVICES"] = device.partition("/")
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ENGINE, str(port)], env=environ, start_new_session=True
        )
        self.story.engines.append(process)
        wait_until(lambda: process.pid in far_world.world.listeners().get(port, ()), 30, "the engine listening")
        return process

    def tunnel(self, replica: str, port: int, state: str = "up", to_port: int | None = None) -> None:
        self.story.sql(
            "INSERT INTO tunnels (attempt_id, node, port, to_host, to_port, state)"
            " SELECT a.id, 'node', %s, '127.0.0.1', coalesce(%s, r.port), %s FROM attempts a"
            " JOIN replicas r ON r.id = a.replica_id WHERE a.name = %s",
            *(port, to_port, state, name_of(replica)),
        )

    def keeps(self, port: int) -> None:
        """The ssh of the tunnels listens there, which is a process of the story's."""
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _ENGINE, str(port)], start_new_session=True)
        self.story.engines.append(process)
        wait_until(lambda: process.pid in far_world.world.listeners().get(port, ()), 30, "the tunnel listening")
        self.connections.append(Connection(process.pid, "tunnels", "ssh"))


@pytest.fixture
def elsewhere(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    """Nothing is wrong with it."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    # the words of the parts; that they are understood is shown where the parts are
    made = Elsewhere(story, [Job("7", name_of(A), "RUNNING")], [], [], folder)
    monkeypatch.setattr(far_world, "jobs", lambda _: made.jobs)
    monkeypatch.setattr(far_world, "containers", lambda _: made.containers)
    monkeypatch.setattr(far_world, "connections", lambda _: made.connections)
    monkeypatch.setattr(far_world, "volumes", lambda _: made.volumes)
    monkeypatch.setattr(far_world, "networks", lambda _: made.networks)
    facts = replace(story.run.stack, places=PlaceFacts(PREFIX), haproxy_socket=folder / "haproxy.sock")
    story.run = replace(story.run, stack=facts)
    port = free_port()
    # workers write down what they know to run
    story.sql(
        "INSERT INTO backends (name, host_bound, serves_http) VALUES ('slurm', false, true), ('docker', true, true)"
        " ON CONFLICT DO NOTHING"
    )
    story.sql("UPDATE replicas SET backend = 'slurm', host = '127.0.0.1', port = %s WHERE id = %s", port, A)
    story.sql("UPDATE attempts SET backend = 'slurm', job_id = '7' WHERE replica_id = %s", A)
    made.engine(A, port)
    return made


def _kill_engine_of_a(world: Elsewhere) -> None:
    engine = world.story.engines[-1]
    engine.kill()
    engine.wait(30)


def _port_of_a(world: Elsewhere) -> int:
    (row,) = world.story.connection.execute("SELECT port FROM replicas WHERE id = %s", (A,)).fetchall()
    return int(row[0])


def _move_a(world: Elsewhere) -> None:
    world.story.sql("UPDATE replicas SET port = %s WHERE id = %s", free_port(), A)


def _tunnelled(world: Elsewhere, *, leased: bool = True, kept: bool = True, to_port: int | None = None) -> None:
    port = free_port()
    if leased:
        world.story.lease("port", "node", port, A)
    if kept:
        world.keeps(port)
    world.tunnel(A, port, to_port=to_port)


def _contained(world: Elsewhere, replica: str, state: str) -> None:
    world.containers = [Container("c" * 64, name_of(replica), state)]


def _in_a_container(world: Elsewhere) -> None:
    world.jobs = []
    world.story.sql("UPDATE replicas SET backend = 'docker' WHERE id = %s", A)
    world.story.sql("UPDATE attempts SET backend = 'docker', job_id = NULL WHERE replica_id = %s", A)


def _secrets_of(world: Elsewhere, replica: str, place: str) -> None:
    folder = world.story.folder / place / name_of(replica)
    folder.mkdir(parents=True)
    (folder / "private").touch()


def _seated(world: Elsewhere, *replicas: str) -> None:
    """On the seats of a job that runs; A's job is that one."""
    share = world.story.folder / "shared" / ".shared" / "0123-0"
    (share / "seats").mkdir(parents=True)
    for number, replica in enumerate(replicas):
        (share / "seats" / str(number)).write_text(json.dumps({"name": name_of(replica)}))
    world.jobs = [Job("7", f"{PREFIX}shared-0123-0", "RUNNING")]


def _deleted(world: Elsewhere, ago_s: float) -> None:
    (world.story.folder / "far" / "attempts" / name_of(B)).mkdir(parents=True)
    world.story.journal("request", id=99, method="DELETE", path=f"/api/v1/replicas/{B}", body=None, key=None)
    world.story.journal("answer", id=99, status=204, body=None, headers={}, at=time.time() - ago_s)


def _socket(world: Elsewhere, name: str) -> None:
    folder = os.open(world.folder, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            # by a short way: its own path may be longer than an address can be
            made.bind(f"/proc/self/fd/{folder}/{name}")
    finally:
        os.close(folder)


def _read(world: Elsewhere, *heard: tuple[int, int], said: int | None = None, op: str = "log") -> None:
    rows = [["0123abcd", first, last] for first, last in heard]
    world.story.journal(op, replica=A, heard=rows, said=None if said is None else ["0123abcd", said])


def _answered(world: Elsewhere, query: str, *numbers: int) -> None:
    lines = "".join(f"talks 0123abcd {number}\n" for number in numbers)
    path = f"/api/v1/replicas/{A}/logs{query}"
    world.story.journal("request", id=98, method="GET", path=path, body=None, key=None)
    world.story.journal("answer", id=98, status=200, body=f"a word of the shell\n{lines}", headers={})


def _say_jobs(*jobs: Job) -> Callable[[Elsewhere], None]:
    def say(world: Elsewhere) -> None:
        world.jobs = list(jobs)

    return say


def _start_twice(world: Elsewhere, *jobs: str, restarts: int = 0) -> None:
    lines = [f"{number} run-{number * restarts} job-{job}\n" for number, job in enumerate(jobs)]
    (world.story.folder / "starts" / name_of(A)).write_text("".join(lines))


_ROWS = "logs: lines of a log are missing, doubled or out of order"
_OURS = Job("7", name_of(A), "RUNNING")
SPOILS: dict[str, tuple[Callable[[Elsewhere], None], str]] = {
    "its engine died": (_kill_engine_of_a, "places: a replica is ready and nothing of it runs elsewhere"),
    "two engines": (
        lambda w: void(w.engine(A, free_port())),
        "places: an attempt has more than one engine elsewhere",
    ),
    "an engine of one that is over": (
        lambda w: void(w.engine(B, free_port())),
        "places: something runs elsewhere for an attempt that is over or unknown",
    ),
    "another address": (_move_a, "places: a ready replica does not listen elsewhere where it is said to"),
    "no job": (_say_jobs(), "places: a replica is ready and its job does not run"),
    "a job that waits": (
        _say_jobs(replace(_OURS, state="PENDING")),
        "places: a replica is ready and its job does not run",
    ),
    "two jobs": (_say_jobs(_OURS, replace(_OURS, id="8")), "places: an attempt has more than one job"),
    "another job": (
        _say_jobs(replace(_OURS, id="8")),
        "places: the database names another job than the cluster",
    ),
    "a job that is left": (
        _say_jobs(_OURS, Job("8", name_of(B), "PENDING")),
        "places: a job is left of an attempt that is over or unknown",
    ),
    "a silent cluster": (
        lambda w: setattr(w, "jobs", None),
        "places: the cluster does not answer though all should be at rest",
    ),
    "a silent Podman": (
        lambda w: setattr(w, "containers", None),
        "places: Podman does not answer though all should be at rest",
    ),
    "a container that is left": (
        lambda w: _contained(w, B, "running"),
        "places: a container is left of an attempt that is over or unknown",
    ),
    "no container": (_in_a_container, "places: a replica is said to run and its container does not"),
    "a tunnel without a lease": (
        lambda w: _tunnelled(w, leased=False),
        "places: the port of a tunnel is not leased to its attempt",
    ),
    "a tunnel to elsewhere": (
        lambda w: _tunnelled(w, to_port=1),
        "places: the tunnel of a ready replica does not lead to it",
    ),
    "a tunnel that nobody keeps": (
        lambda w: _tunnelled(w, kept=False),
        "places: nobody keeps the tunnel of a ready replica",
    ),
    "a tunnel that is written nowhere": (
        lambda w: w.keeps(free_port()),
        "places: a tunnel is kept that is written nowhere",
    ),
    "a tunnel of one that is over": (
        lambda w: w.tunnel(B, free_port(), to_port=1),
        "places: a tunnel is kept for an attempt that is over",
    ),
    "too many connections": (
        lambda w: w.connections.extend(Connection(pid, "ssh", "ssh") for pid in range(10**7, 10**7 + 9)),
        "places: connections to one host pile up",
    ),
    "started by two jobs": (lambda w: _start_twice(w, "7", "8"), "launches: an engine was started more than once"),
    "started twice by one job": (lambda w: _start_twice(w, "7", "7"), "launches: an engine was started more than once"),
    "a shared job of nobody": (
        _say_jobs(_OURS, Job("9", f"{PREFIX}shared-0123-0", "RUNNING")),
        "places: a shared job is left in which no attempt has a seat",
    ),
    "a shared job twice": (
        _say_jobs(*(Job(number, f"{PREFIX}shared-0123-0", "RUNNING") for number in "78")),
        "places: a shared job was submitted twice",
    ),
    "a GPU of two": (
        lambda w: (void(w.engine(A, free_port(), "n1/0")), void(w.engine(B, free_port(), "n1/0"))),
        "places: two attempts have the same GPU",
    ),
    "a GPU of two for a moment": (
        lambda w: w.story.sighting("shared_gpu", gpu="n1/0", attempts=[name_of(A), name_of(B)]),
        "launches: two attempts had the same GPU at once",
    ),
    "a seat of one that is over": (
        lambda w: _seated(w, B),
        "leftovers: a seat is held by an attempt that is over",
    ),
    "secrets of one that is over": (
        lambda w: _secrets_of(w, B, "queue"),
        "leftovers: secrets are kept of an attempt that is over",
    ),
    "a folder of one that was deleted": (
        lambda w: _deleted(w, 600),
        "leftovers: a folder is left of an attempt that was deleted long ago",
    ),
    "a volume": (
        lambda w: w.volumes.append("v"),
        "leftovers: a volume is left of a container that is gone",
    ),
    "a network": (lambda w: w.networks.append("n"), "leftovers: a network is left that nobody asked for"),
    "a socket": (
        lambda w: _socket(w, "ssh-0123456789.abcdef01"),
        "leftovers: a socket is left of a connection that is gone",
    ),
    "a line that is missing": (lambda w: _read(w, (0, 5), (7, 9)), _ROWS),
    "a line that was told twice": (lambda w: _read(w, (0, 5), (5, 9), op="followed"), _ROWS),
    "lines before the first": (lambda w: _read(w, (3, 9)), _ROWS),
    "lines after the last": (lambda w: _read(w, (0, 9), said=10), "logs: a log lacks what was said long before"),
    "nothing that was said": (lambda w: _read(w, said=1, op="followed"), "logs: a log lacks what was said long before"),
    "an answer that lacks lines": (lambda w: _answered(w, "", 0, 1, 3), _ROWS),
    "an answer that begins late": (lambda w: _answered(w, "", 4, 5), _ROWS),
    "last lines that lack some": (lambda w: _answered(w, "?tail=20", 4, 6), _ROWS),
    "two at once": (
        lambda w: w.story.sighting("doubled", attempt=name_of(A), pids=[1, 2]),
        "launches: two engines of one attempt ran at once",
    ),
}


def void(_: object) -> None:
    return


def test_nothing_is_found_where_all_is_right(elsewhere: Elsewhere) -> None:
    assert elsewhere.story.findings() == set()


@pytest.mark.parametrize("spoil", SPOILS)
def test_what_is_spoiled_is_found(spoil: str, elsewhere: Elsewhere) -> None:
    act, expected = SPOILS[spoil]
    act(elsewhere)
    assert expected in elsewhere.story.findings()


def test_a_tunnel_that_leads_there_is_right(elsewhere: Elsewhere) -> None:
    _tunnelled(elsewhere)
    assert elsewhere.story.findings() == set()


def test_what_may_be_kept_is_no_finding(elsewhere: Elsewhere) -> None:
    _secrets_of(elsewhere, A, "login")
    _deleted(elsewhere, 10)
    _socket(elsewhere, "ssh-0123456789")
    _socket(elsewhere, "ssh-0123456789.abcdef01")
    elsewhere.connections = [Connection(1, "ssh", f"ssh -M -S {elsewhere.folder}/ssh-0123456789.abcdef01 there")]
    _read(elsewhere, (0, 12), said=10)
    _answered(elsewhere, "?tail=20", 4, 5)
    assert elsewhere.story.findings() == set()


def test_who_shares_a_job_has_that_one(elsewhere: Elsewhere) -> None:
    _seated(elsewhere, A)
    assert elsewhere.story.findings() == set()
    elsewhere.jobs = []
    assert "places: a replica is ready and its job does not run" in elsewhere.story.findings()


def test_a_killed_controller_may_begin_a_closed_job_anew(elsewhere: Elsewhere) -> None:
    left = Job("9", f"{PREFIX}shared-0123-0", "PENDING")
    elsewhere.jobs = [_OURS, left]
    text = "places: a shared job is left in which no attempt has a seat"
    assert text in elsewhere.story.findings(), "no controller was killed"
    elsewhere.story.journal("fault", name="kill-controller", target={}, hit={})
    assert text not in elsewhere.story.findings()
    (elsewhere.story.folder / "shared" / ".shared" / "0123-0" / "seats").mkdir(parents=True)
    assert text in elsewhere.story.findings(), "it would take somebody"


def test_who_keeps_the_output_of_a_container_may_take_it_along(elsewhere: Elsewhere) -> None:
    elsewhere.story.journal("fault", name="kill-conmon", target={}, hit={})
    _read(elsewhere, (0, 9), said=10)
    assert elsewhere.story.findings() == set()
    _read(elsewhere, (0, 9), (9, 10), said=10)
    assert _ROWS in elsewhere.story.findings()


def test_what_its_cluster_begins_anew_is_unhealthy_and_starts_once_more(elsewhere: Elsewhere) -> None:
    _kill_engine_of_a(elsewhere)
    elsewhere.jobs = [replace(_OURS, state="PENDING")]
    elsewhere.story.step(A, "ready", "unhealthy")
    elsewhere.story.sql("UPDATE replicas SET state = 'unhealthy' WHERE id = %s", A)
    _start_twice(elsewhere, "7", "7", restarts=1)
    assert elsewhere.story.findings() == set()


def test_a_killed_controller_may_run_its_job_once_more_and_no_other(elsewhere: Elsewhere) -> None:
    elsewhere.story.journal("fault", name="kill-controller", target={}, hit={})
    _start_twice(elsewhere, "7", "7")
    assert elsewhere.story.findings() == set()
    _start_twice(elsewhere, "7", "8")
    assert "launches: an engine was started more than once" in elsewhere.story.findings()


def test_a_killed_controller_may_still_show_a_job_that_ended(elsewhere: Elsewhere) -> None:
    elsewhere.story.journal("fault", name="kill-controller", target={}, hit={})
    elsewhere.jobs = [_OURS, Job("8", name_of(B), "RUNNING")]
    assert elsewhere.story.findings() == set()
    elsewhere.engine(B, free_port())
    assert "places: a job is left of an attempt that is over or unknown" in elsewhere.story.findings()


def test_who_waits_because_the_cluster_holds_its_job_is_at_rest(elsewhere: Elsewhere) -> None:
    _kill_engine_of_a(elsewhere)
    elsewhere.jobs = [replace(_OURS, state="PENDING")]
    for one, other in (("ready", "unreachable"), ("unreachable", "scheduling")):
        elsewhere.story.step(A, one, other)
    elsewhere.story.sql("UPDATE replicas SET state = 'scheduling' WHERE id = %s", A)
    told = json.dumps({"state": "PENDING", "why": "launch failed requeued held"})
    elsewhere.story.sql("UPDATE attempts SET told = %s WHERE name = %s", told, name_of(A))
    assert elsewhere.story.findings() == set()
    elsewhere.jobs = []
    assert "places: a replica is said to wait in a queue where it does not" in elsewhere.story.findings()


def test_others_on_this_host_are_none_of_its_business(elsewhere: Elsewhere) -> None:
    elsewhere.story.run = replace(
        elsewhere.story.run, stack=replace(elsewhere.story.run.stack, places=PlaceFacts("hostler-others-"))
    )
    found = far_world.processes(PlaceFacts("hostler-others-"), elsewhere.story.state_dir)
    assert found == []
    ours = far_world.processes(PlaceFacts(PREFIX), elsewhere.story.state_dir)
    assert {one.name for one in ours} == {name_of(A)}, f"the engine of {C} is on this host"


def test_podman_is_not_believed_of_a_container_that_nobody_keeps_any_more() -> None:
    kept, marked, gone = (Container(sign * 64, name_of(one), "running") for sign, one in (("a", A), ("b", B), ("c", C)))
    ended = replace(kept, id="d" * 64, state="exited")
    found = far_world.without_abandoned([kept, marked, gone, ended], {kept.id}, {name_of(B)})
    assert found == [kept, marked, replace(gone, state="abandoned"), ended]
    assert [one.is_living for one in found] == [True, True, False, False]
    (stopping,) = far_world.without_abandoned([replace(gone, state="stopping")], set(), set())
    (made,) = far_world.without_abandoned([replace(gone, state="created")], set(), set())
    assert (stopping.is_living, made.is_living) == (False, True)
