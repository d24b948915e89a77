"""A stack over two hosts, as their operators set it up: network namespaces that see each other by one cable.

Database, broker, API and gateway are on one; `hostler worker` and the engines on the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from app.stack.processes import engines
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.hosts import HostStack, on, parts_on
from tests.support.netns import Host, Link, need_namespaces, net
from tests.support.stacks import MOCK

#: Until a host that was cut off counts as silent (20 s and 10 s of proof), with a busy machine's patience.
SILENT_S = 90
#: Until connections that the cut killed are noticed, made anew, and everything is looked at again. The longest way: a
#: worker's connection seems well and is deaf; after 90 s without canaries it ends by itself, and is started again.
BACK_S = 240
pytestmark = pytest.mark.timeout(600)


class Two:
    """Both hosts, what connects them, and the stack's parts on each."""

    def __init__(self, control: HostStack, far: HostStack, link: Link, environ: dict[str, str]) -> None:
        self.control, self.far, self.link, self.environ = control, far, link, environ
        self.call = control.call

    def replica(self, **changes: Any) -> dict[str, Any]:
        made = self.call("POST", "/api/v1/replicas", {**MOCK, "pool": "far", "wait_for_ready": True, **changes}, 201)
        return dict(made)

    def get(self, replica_id: str) -> dict[str, Any]:
        return dict(self.call("GET", f"/api/v1/replicas/{replica_id}"))

    def await_state(self, replica_id: str, state: str, timeout_s: float) -> None:
        def reached() -> bool:
            now = self.get(replica_id)
            assert now["status"] == state or now["status"] not in ("failed", "stopped"), now
            return bool(now["status"] == state)

        wait_until(reached, timeout_s, lambda: f"{replica_id} to be {state}: {self.story(replica_id)}")

    def story(self, replica_id: str) -> str:
        """What a failure's message should say of a replica."""
        explained = self.call("GET", f"/api/v1/replicas/{replica_id}/explain")
        return f"{json.dumps(explained)}\non the far host:\n{self.far.last_words()}"

    def ask(self, replica_id: str) -> int:
        """The status of a chat with that replica through the gateway."""
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
        headers = {"X-API-Key": self.control.key, "X-Hostler-Replica": replica_id}
        url = f"{self.control.url}/v1/chat/completions"
        return self.control.host.do(
            lambda: plain_http.post(url, json=body, headers=headers, timeout=60, trust_env=False).status_code
        )

    def await_answer(self, replica_id: str) -> None:
        """One that was written down as ready is routed to within a moment."""
        wait_until(lambda: self.ask(replica_id) == 200, 30, f"an answer of {replica_id}")

    def sessions(self) -> list[str]:
        """Sessions of the far host in the database."""
        query = "SELECT application_name, state, query FROM pg_stat_activity WHERE client_addr = %s"

        def read() -> list[str]:
            with psycopg.connect(self.environ["HOSTLER_DATABASE_URL"], connect_timeout=5) as connection:
                return [str(row) for row in connection.execute(query, (self.far.host.address,))]

        return self.control.host.do(read)

    def engines(self) -> dict[str, set[int]]:
        """Processes by replica that run on the far host."""
        found: dict[str, set[int]] = {}
        for one in engines(self.far.layout):
            if one.role == "engine":
                found.setdefault(one.replica_id or "", set()).add(one.process.pid)
        return found

    def clear(self) -> None:
        """End what a test that failed left: the next one finds room for its own."""
        for service in self.call("GET", "/api/v1/services?limit=100")["services"]:
            if service["status"] not in ("completed", "failed", "cancelled"):
                self.control.must("service", "stop", service["service_id"], "--wait", "--timeout", "60s")
        found = self.call("GET", "/api/v1/replicas?limit=100")["replicas"]
        self.end(*(one["replica_id"] for one in found if one["status"] not in ("stopped", "failed")))

    def end(self, *replica_ids: str) -> None:
        for replica_id in replica_ids:
            self.call("POST", f"/api/v1/replicas/{replica_id}/stop", {"force": True}, (200, 202))
        for replica_id in replica_ids:
            wait_until(lambda one=replica_id: self.get(one)["released_at"], 60, f"the end of {replica_id}")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    need_namespaces()
    folder = tmp_path_factory.mktemp("hosts")
    with net() as network:
        here, there = network.host("control"), network.host("far")
        link = network.link(here, there, "10.77.1")
        quick = {"HOSTLER_PROBE_INTERVAL_S": "1", "HOSTLER_SWEEP_INTERVAL_S": "1"}
        own = {"NAME": "control", "POOLS": "local,mock", "ADDRESS": here.address}
        near = {f"HOSTLER_NODE_{name}": value for name, value in own.items()}
        with (
            parts_on(here, folder) as parts,
            on(here, folder / "control", **near, **quick, **parts) as a,
            on(there, folder / "far", HOSTLER_NODE_NAME="far", **quick, **parts) as b,
        ):
            a.up()
            a.call("POST", "/api/v1/pools", {"name": "far", "backend": "process", "slots": 8}, 201)
            b.take_keys_of(a)
            b.must("worker", "-d", "--pool", "far")
            yield Two(a, b, link, parts)


@pytest.fixture(autouse=True)
def cleared(two: Two) -> None:
    two.clear()


def test_an_engine_on_another_host_is_reached_at_its_address_and_by_key_alone(two: Two) -> None:
    there = two.far.host.address
    made = two.replica(run_diagnostics=True)
    replica_id, where = made["replica_id"], urlsplit(made["base_url"])
    assert (where.hostname, made["node"]) == (there, "far")
    assert made["host"] == there
    two.await_answer(replica_id)
    [shown] = [one for one in two.call("GET", "/api/v1/nodes")["nodes"] if one["name"] == "far"]
    assert (shown["address"], shown["pools"], shown["state"]) == (there, ["far"], "up")
    # from the other host, past the gateway
    for key, answer in (("", 401), ("wrong", 401), (_engine_key(two), 200)):
        assert _ask_engine(two.control.host, made["base_url"], key) == answer
    listening = {address for row in two.far.processes("engine") for address in row["listen"]}
    assert listening == {f"{there}:{where.port}"}, "nowhere else, not even on loopback"
    two.end(replica_id)


def test_each_host_serves_its_own_pools_alone(two: Two) -> None:
    near, far = two.replica(pool="local", model_name="near"), two.replica(model_name="far")
    assert (near["node"], near["host"]) == ("control", two.control.host.address)
    assert (far["node"], far["host"]) == ("far", two.far.host.address)
    queues = {
        one["name"]: {queue for worker in one["workers"] for queue in worker["queues"]}
        for one in two.call("GET", "/api/v1/nodes")["nodes"]
    }
    assert {"pool.far", "pool.far.control", "node.far", "node.far.control"} <= queues["far"]
    assert not {"pool.local", "pool.local.control", "pool.mock"} & queues["far"]
    assert "pool.local" in queues["control"]
    assert "pool.far" not in queues["control"]
    two.end(near["replica_id"], far["replica_id"])


def test_a_gateway_elsewhere_reaches_the_engines_of_every_host(two: Two, tmp_path: Path) -> None:
    """A second door on the far host: engines of the first host are at its address, not on its loopback."""
    names = {"HOSTLER_NODE_NAME": "door", "HOSTLER_NODE_POOLS": "mock"}
    near, far = two.replica(pool="local", model_name="near"), two.replica(model_name="far")
    with on(two.far.host, tmp_path / "door", **names, **two.environ) as door:
        door.take_keys_of(two.control)
        door.up()
        for model in ("near", "far"):
            body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
            assert door.call("POST", "/v1/chat/completions", body)["choices"]
        door.must("down")
    path = f"/api/v1/gateways/{_door_gateway(two)}"
    # heard of a moment ago, it counts as alive
    wait_until(lambda: two.call("DELETE", path, None, (200, 204, 409)) is None, 60, "its gateway to be forgotten")
    two.end(near["replica_id"], far["replica_id"])


def test_a_host_that_is_cut_off_and_back_loses_and_doubles_nothing(two: Two) -> None:
    kept = [two.replica()["replica_id"] for _ in range(3)]
    stopped = two.replica()["replica_id"]
    before, attempts = two.engines(), {one: two.get(one)["attempt"] for one in kept}
    assert set(before) == {*kept, stopped}
    two.link.cut()
    try:
        # asked for while nobody there hears of it
        body = {**MOCK, "pool": "far", "model_name": "late", "wait_for_ready": False}
        late = two.call("POST", "/api/v1/replicas", body, 202)["replica_id"]
        two.call("POST", f"/api/v1/replicas/{stopped}/stop", {"drain_s": 0}, (200, 202))
        for replica_id in kept:
            two.await_state(replica_id, "unreachable", SILENT_S)
        assert two.ask(kept[0]) == 503
        told = two.call("GET", "/api/v1/events?kind=pool_suspect&limit=100")["events"]
        assert [one for one in told if one["pool"] == "far" and one["node"] == "far"], told
        assert "node far is silent" in _problems(two)
        assert two.get(late)["status"] == "pending"
        explained = two.call("GET", f"/api/v1/replicas/{late}/explain")
        assert "far" in json.dumps(explained), explained
        assert two.get(stopped)["released_at"] is None, "nobody saw it gone"
        assert two.engines() == before, "nothing was torn down"
        wait_until(lambda: not two.sessions(), 60, "the database to give up the sessions of a host that is away")
    finally:
        two.link.heal()
    for replica_id in kept:
        two.await_state(replica_id, "ready", BACK_S)
    two.await_state(late, "ready", BACK_S)
    wait_until(lambda: two.get(stopped)["released_at"], BACK_S, "the stop that was asked for meanwhile")
    after = two.engines()
    assert {one: after.get(one) for one in kept} == {one: before[one] for one in kept}, "the very same processes"
    assert set(after) == {*kept, late}
    assert {one: two.get(one)["attempt"] for one in kept} == attempts
    for replica_id in (*kept, late):
        assert _starts(two, replica_id) == 1
        two.await_answer(replica_id)
    two.end(*kept, late)


def test_launches_under_way_when_the_plug_is_pulled_happen_once(two: Two) -> None:
    """Claimed, being launched, starting or in the queue: whatever each was at, it is one engine in the end.

    The host's address is gone with the link: its own agent cannot reach its engines either, and judges nobody by that.
    Members of a service get no successors while their host is not heard of.
    """
    made = two.control.json(
        "service", "create", "inference/mock", "--name", "far-away", "--replicas", "2", "--pool", "far",
        "--wait", "--timeout", "60s",
    )  # fmt: skip
    members = {one["replica_id"] for one in made["replicas"]}
    body = {**MOCK, "pool": "far", "wait_for_ready": False, "replica_config": {"mock": {"startup_s": 2}}}
    asked = [two.call("POST", "/api/v1/replicas", body, 202)["replica_id"] for _ in range(6)]
    wait_until(lambda: {two.get(one)["status"] for one in asked} != {"pending"}, 30, "the first claim")
    two.link.unplug(two.far.host)
    try:
        # their leases are over by then, and for what was claimed nobody may stand in
        wait_until(lambda: "node far is silent" in _problems(two), SILENT_S, "the host to be missed")
        for replica_id in members:
            two.await_state(replica_id, "unreachable", SILENT_S)
        shown = two.call("GET", "/api/v1/services/far-away")
        assert {one["replica_id"] for one in shown["replicas"]} == members
    finally:
        two.link.plug_in(two.far.host)
    for replica_id in (*asked, *members):
        two.await_state(replica_id, "ready", BACK_S)
        assert _starts(two, replica_id) == 1
        assert two.get(replica_id)["attempt"] == 1
    assert set(two.engines()) == {*asked, *members}
    two.end(*asked)
    two.control.must("service", "stop", "far-away", "--wait", "--timeout", "60s")
    assert not two.engines()


def test_what_cannot_join_is_told_why_and_what_to_do(two: Two, tmp_path: Path) -> None:
    host = two.far.host
    with on(host, tmp_path / "bare", HOSTLER_NODE_NAME="bare") as bare:
        done = bare.hostler("worker", "-d", "--pool", "far")
        assert done.returncode == 2
        assert "HOSTLER_DATABASE_URL and HOSTLER_BROKER_URL" in done.stderr
    with on(host, tmp_path / "third", HOSTLER_NODE_NAME="third", **two.environ) as third:
        _refused(third, "secrets/engine-key and secrets/secret-key", "worker", "-d")
        third.take_keys_of(two.control)
        (third.layout.secrets / "engine-key").write_text("k" * 43 + "\n")
        _refused(third, "secrets/engine-key here is not the stack's", "worker", "-d")
        third.take_keys_of(two.control)
        _refused(third, "HOSTLER_NAMESPACE", "worker", "-d", HOSTLER_NAMESPACE="another")
        _refused(third, "no pool is called 'fra'. Did you mean far?", "worker", "-d", "--pool", "fra")
        _refused(third, "no address of this host", "worker", "-d", "--address", two.control.host.address)
        _refused(third, "HOSTLER_NODE_ADDRESS", "worker", "-d", "--address", "0.0.0.0")
        broker = two.environ["HOSTLER_BROKER_URL"]
        for url in (broker.replace("redis://:", "redis://:not"), f"{broker}?nothing=1"):
            _refused(third, "check HOSTLER_BROKER_URL", "worker", "-d", HOSTLER_BROKER_URL=url)
        assert not third.living(), "nothing is left of what was refused"
    _refused(two.far, "a worker host is up", "up", "-d")
    assert "third" not in _problems(two)


def test_a_second_host_of_one_name_is_refused(two: Two, tmp_path: Path) -> None:
    with on(two.far.host, tmp_path / "twin", HOSTLER_NODE_NAME="far", **two.environ) as twin:
        twin.take_keys_of(two.control)
        _refused(twin, "HOSTLER_NODE_NAME", "worker", "-d", "--pool", "far")
    [shown] = [one for one in two.call("GET", "/api/v1/nodes")["nodes"] if one["name"] == "far"]
    assert shown["attributes"]["home"].endswith(str(two.far.state_dir))


def test_a_worker_host_leaves_with_its_replicas_and_comes_back(two: Two) -> None:
    replica_id = two.replica()["replica_id"]
    assert "keeping 1 engines here" in two.far.hostler("down", "--keep-replicas").stderr
    assert set(two.engines()) == {replica_id}
    two.far.must("worker", "-d", "--pool", "far")
    two.await_state(replica_id, "ready", 60)
    two.await_answer(replica_id)
    # typed by somebody who has nothing of this in his environment
    bare = {name: "" for name in two.far.environ if name.startswith("HOSTLER_")}
    assert replica_id in two.far.hostler("down", **bare).stderr
    assert two.get(replica_id)["status"] == "stopped"
    assert two.get(replica_id)["released_at"]
    assert not two.far.living()
    [shown] = [one for one in two.call("GET", "/api/v1/nodes")["nodes"] if one["name"] == "far"]
    assert shown["attributes"]["left"]
    two.far.must("worker", "-d", "--pool", "far")
    two.end(two.replica()["replica_id"])


def test_no_key_is_in_a_command_line_or_a_file_that_others_read(two: Two) -> None:
    words = [*two.environ.values(), _engine_key(two)]
    lines = []
    for process in two.far.living():
        with suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
    assert lines
    assert not [line for line in lines for word in words if word in line]
    findings = {one["check"]: one for one in two.far.json("doctor")}
    assert findings["permissions"]["result"] == "ok"
    assert findings["keys"]["result"] == "ok"
    assert not {"gateway", "api"} & set(findings), "they are elsewhere"
    done = two.far.hostler("replica", "list")
    assert done.returncode != 0
    assert "--url" in done.stderr


def _door_gateway(two: Two) -> str:
    [found] = [one["id"] for one in two.call("GET", "/api/v1/gateways")["gateways"] if one["node"] == "door"]
    return str(found)


def _problems(two: Two) -> str:
    return " ".join(two.call("GET", "/health")["problems"])


def _refused(stack: HostStack, why: str, *arguments: str, **environ: str) -> None:
    done = stack.hostler(*arguments, **environ)
    assert done.returncode in (1, 2), done.stdout
    assert why in done.stderr


def _engine_key(two: Two) -> str:
    return (two.control.layout.secrets / "engine-key").read_text().strip()


def _ask_engine(host: Host, base_url: str, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return host.do(
        lambda: plain_http.get(f"{base_url}/v1/models", headers=headers, timeout=10, trust_env=False).status_code
    )


def _starts(two: Two, replica_id: str) -> int:
    """How often the engine was started, over all of its attempts: it writes a line each time."""
    files = two.far.layout.attempts.glob(f"*-{replica_id}-*/starts")
    return sum(len(file.read_text().splitlines()) for file in files)
