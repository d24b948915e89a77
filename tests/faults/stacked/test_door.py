"""Under load one replica of three is killed, each other part dies or freezes, and who asks a model sees nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from app.settings import Settings
from app.stack.processes import control_plane
from app.stack.secrets import engine_key
from tests.faults.stacked.askers import Askers, answers, askers, crew
from tests.faults.stacked.clients import MENDED_S, mended, put_away
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import Stack

pytestmark = pytest.mark.timeout(180)

#: Asked after a fault has begun, and again after it has ended.
MORE = 60
FROZEN_S = 3.0


@pytest.fixture
def three(up: Stack) -> Iterator[list[str]]:
    mended(up)
    made = crew(up)
    for replica in made:
        wait_until(lambda replica=replica: answers(up, replica), MENDED_S, f"{replica} through the door")
    yield made
    put_away(up, [replica for replica in made if up.state_of(replica) != "failed"])


def test_one_of_three_is_killed(up: Stack, three: list[str]) -> None:
    """No whole answer is lost, and no stream of the others is touched."""
    engines = {row["replica_id"]: row["pid"] for row in up.processes("engine")}
    with askers(up) as at_work:
        wait_until(lambda: set(at_work.running.values()) == set(three), 30, "streams of all three")
        os.kill(engines[three[0]], signal.SIGKILL)
        more(at_work)
        wait_until(lambda: up.state_of(three[0]) == "failed", MENDED_S, "its death to be known")
        more(at_work)
    assert at_work.failed == []
    assert at_work.failed_slowly == []
    cut = [one for one in at_work.streams if one.replica == three[0] and not one.whole]
    assert cut, "its own streams were under way"
    assert [one for one in at_work.streams if one.replica != three[0] and not (one.whole and one.exact)] == []
    assert {one.replica for one in at_work.streams} == set(three)


HOW = {"killed": signal.SIGKILL, "ended": signal.SIGTERM, "frozen": signal.SIGSTOP}
#: Ended in order Postgres would wait for its users.
ENDS = {"postgres": signal.SIGINT}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("role", ["web", "postgres", "redis", "gateway-agent", "agent", "slow-lane"])
def test_nobody_notices_that_a_part_is_away(up: Stack, three: list[str], role: str, how: str) -> None:
    """What the slow lane would read while it is away is told when to come again."""
    with askers(up, whole=4, streams=3) as at_work:
        hit = [one.process.pid for one in control_plane(up.layout) if one.role == role]
        if role == "postgres":
            hit = [up.pid(role)]
        assert hit
        send(hit, ENDS.get(role, HOW[how]) if how == "ended" else HOW[how])
        more(at_work)
        if how == "frozen":
            time.sleep(FROZEN_S)
            send(hit, signal.SIGCONT)
        more(at_work)
        mended(up)
        slowly = at_work.read_slowly
        wait_until(lambda: at_work.read_slowly > slowly + 3, MENDED_S, "the slow lane at work")
    assert at_work.failed == []
    assert [one for one in at_work.streams if not (one.whole and one.exact)] == []
    if role == "slow-lane":
        # the one that it was reading when it was killed: nobody else has it, and it may not be sent twice
        cut = [said for said in at_work.failed_slowly if how == "killed" and said.startswith("RemoteProtocolError")]
        assert len(cut) <= 1
        assert [said for said in at_work.failed_slowly if not is_later(said) and said not in cut] == []
    else:
        assert at_work.failed_slowly == []
    assert {up.state_of(replica) for replica in three} == {"ready"}


@pytest.mark.parametrize("part", ["worker", "master"])
def test_the_gateway_itself_is_killed(up: Stack, three: list[str], part: str) -> None:
    """It is back from its file, with all routes, whoever else is away."""
    pids = sorted(
        (one.process for one in control_plane(up.layout) if one.role == "gateway"), key=lambda one: one.ppid()
    )
    agents = [one.process.pid for one in control_plane(up.layout) if one.role == "gateway-agent"]
    master = up.pid("gateway")
    worker = next(one.pid for one in pids if one.ppid() == master)
    send(agents, signal.SIGSTOP)
    try:
        os.kill(worker if part == "worker" else master, signal.SIGKILL)
        for replica in three:
            wait_until(lambda replica=replica: answers(up, replica), 10, f"{replica} through the door again")
    finally:
        send(agents, signal.SIGCONT)
    with askers(up, whole=3, streams=2) as at_work:
        more(at_work)
    assert at_work.failed == []


def test_replicas_are_replaced_one_after_the_other(up: Stack, three: list[str]) -> None:
    """What is in flight ends where it began; what comes meanwhile goes to the others."""
    with askers(up, whole=4, streams=6) as at_work:
        for place, old in enumerate(list(three)):
            [three[place]] = crew(up, 1)
            wait_until(lambda place=place: answers(up, three[place]), MENDED_S, "the new one through the door")
            wait_until(lambda old=old: old in at_work.running.values(), 30, "a stream of the one that is to go")
            up.call("POST", f"/api/v1/replicas/{old}/stop", {}, 202)
            wait_until(lambda old=old: up.state_of(old) == "stopped", MENDED_S, f"{old} to be stopped")
            more(at_work)
        for replica in three:
            up.call("POST", f"/api/v1/replicas/{replica}/restart", {}, 202)
            # until its first attempt is out of the door, that one answers
            wait_until(lambda replica=replica: ready_again(up, replica), MENDED_S, f"{replica} to be restarted")
            wait_until(lambda replica=replica: answers(up, replica), MENDED_S, f"{replica} after its restart")
    assert at_work.failed == []
    assert at_work.failed_slowly == []
    assert [one for one in at_work.streams if not (one.whole and one.exact)] == []


def ready_again(up: Stack, replica: str) -> bool:
    body = up.call("GET", f"/api/v1/replicas/{replica}")
    return bool(body["attempt"] == 2 and body["status"] == "ready")


def test_who_goes_away_in_mid_stream_frees_the_slot(up: Stack) -> None:
    """A real engine with one slot, in the middle of an answer that would take much longer."""
    up.must("model", "make-tiny", "long")
    config = {"n_ctx": LONG, "n_parallel": 1, "threads": 1}
    replica = up.replica(server_mode="replica", model_name="long", replica_config=config)
    try:
        url = up.call("GET", f"/api/v1/replicas/{replica}")["base_url"]
        body = {"model": "long", "prompt": "a", "max_tokens": LONG - 16, "stream": True, "ignore_eos": True}
        headers = {"X-API-Key": up.key}

        def streams() -> bool:
            with plain_http.stream(
                "POST", f"{up.url}/v1/completions", json=body, headers=headers, timeout=30, trust_env=False
            ) as answer:
                return answer.status_code == 200 and busy(up, url) == 1 and bool(next(answer.iter_lines()))

        wait_until(streams, MENDED_S, "a stream")
        made = counted(up, url, "llamacpp:tokens_predicted_total")
        wait_until(lambda: busy(up, url) == 0, 10, "the slot to be free")
        assert counted(up, url, "llamacpp:tokens_predicted_total") - made < LONG / 2, "it was not made to the end"
    finally:
        put_away(up, [replica])


LONG = 16384


def busy(up: Stack, url: str) -> float:
    return counted(up, url, "llamacpp:requests_processing")


def counted(up: Stack, url: str, name: str) -> float:
    key = engine_key(Settings.load({}, state_dir=up.state_dir))
    told = plain_http.get(
        f"{url}/metrics", headers={"Authorization": f"Bearer {key}"}, timeout=10, trust_env=False
    ).text
    return float(next(line.split()[1] for line in told.splitlines() if line.startswith(f"{name} ")))


def more(at_work: Askers, count: int = MORE) -> None:
    asked, streams = at_work.asked, len(at_work.streams)
    wait_until(
        lambda: at_work.asked > asked + count and len(at_work.streams) > streams + 3,
        MENDED_S,
        "more answers and streams",
    )


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def is_later(said: str) -> bool:
    """It was refused, or ended with what it was given: told as a problem, by the gateway."""
    away = said.startswith("503 ") and "retry-after" in said.lower()
    return (away or said.startswith("502 ")) and '"source": "gateway"' in said
