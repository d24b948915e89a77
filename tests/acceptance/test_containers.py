"""A real engine in a container, served through the gateway, as a user types it; and what happens behind its back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import pytest

from app.engines.tiny_model import write_tiny_gguf
from tests.support.embedded import wait_until
from tests.support.podman import Podman, podman
from tests.support.stacks import Stack, stack

__all__ = ["podman"]
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, podman: Podman) -> Iterator[Stack]:
    """A stack whose pool ``pods`` runs containers."""
    folder = tmp_path_factory.mktemp("pods")
    models = folder / "models"
    models.mkdir()
    write_tiny_gguf(models / "tiny.gguf")
    with stack(folder / "state", HOSTLER_MODELS_DIR=str(models)) as made:
        made.up()
        options = podman.options(models)
        made.must("pool", "create", "pods", "--backend", "docker", "--slots", "4", *_options(options))
        yield made
        made.must("down")


def test_a_model_is_served_from_a_container_and_stopped(shared: Stack, podman: Podman) -> None:
    made = _serve(shared, "--wait")
    replica = made["replica_id"]
    answer = _chat(shared)
    assert answer["choices"][0]["message"]["content"]
    (name,) = podman.names()
    assert replica in name
    with podman.client() as client:
        seen = client.inspect_container(name)
    assert seen["HostConfig"]["RestartPolicy"]["Name"] in ("", "no")
    key = (shared.layout.secrets / "engine-key").read_text().strip()
    assert key not in json.dumps([seen["Config"]["Labels"], seen["Config"]["Cmd"], seen["Config"]["Entrypoint"]])
    assert shared.must("replica", "logs", replica)
    shared.must("replica", "stop", replica, "--wait")
    assert shared.state_of(replica) == "stopped"
    wait_until(lambda: not _running(podman), 20, "the container being gone")


def test_a_container_that_is_killed_behind_its_back_is_noticed_and_said(shared: Stack, podman: Podman) -> None:
    replica = _serve(shared, "--wait")["replica_id"]
    name = next(name for name in podman.names() if replica in name)
    with podman.client() as client:
        client.kill(name, "SIGKILL")
    wait_until(lambda: shared.state_of(replica) == "failed", 20, "the death being noticed")
    told = shared.call("GET", f"/api/v1/replicas/{replica}")
    assert told["reason"] == "process_exited", told
    assert "SIGKILL" in told["message"]


def test_while_the_daemon_is_away_it_is_unreachable_and_never_dead(shared: Stack, podman: Podman) -> None:
    replica = _serve(shared, "--wait")["replica_id"]
    podman.stop()
    try:
        wait_until(lambda: shared.state_of(replica) == "unreachable", 30, "the silence being noticed")
        assert _chat(shared)["choices"], "what runs goes on serving"
    finally:
        podman.start()
    wait_until(lambda: shared.state_of(replica) == "ready", 30, "it being seen again")
    assert len(_running(podman)) == 1
    shared.must("replica", "stop", replica, "--wait")


def test_a_worker_that_is_killed_after_its_launch_doubles_nothing(shared: Stack, podman: Podman) -> None:
    replica = _serve(shared)["replica_id"]
    os.kill(shared.pid("worker"), signal.SIGKILL)
    wait_until(lambda: shared.state_of(replica) == "ready", 60, "it being ready all the same")
    assert len([name for name in podman.names() if replica in name]) == 1
    shared.must("replica", "stop", replica, "--wait")


def test_an_image_that_cannot_be_had_is_a_failed_launch_in_words(shared: Stack) -> None:
    option = "backend_options=" + json.dumps({"image": "127.0.0.1:1/nothing/here:latest"})
    replica = _serve(shared, "--config", option)["replica_id"]
    wait_until(lambda: shared.state_of(replica) == "failed", 30, "the pull being given up")
    told = shared.call("GET", f"/api/v1/replicas/{replica}")
    assert (told["reason"], "cannot be pulled" in told["message"]) == ("launch_failed", True), told


def _serve(shared: Stack, *more: str) -> dict[str, str]:
    recipe = ("--recipe", "inference/llama-cpp", "--set", "parameters.model=tiny")
    return shared.json("replica", "create", "--pool", "pods", *recipe, *more)


def _chat(shared: Stack) -> dict[str, list[dict[str, dict[str, str]]]]:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    return shared.call("POST", "/v1/chat/completions", body)


def _running(podman: Podman) -> list[str]:
    with podman.client() as client:
        return [one["Names"][0] for one in client.containers()]


def _options(options: dict[str, object]) -> list[str]:
    return [word for name, value in options.items() for word in ("--option", f"{name}={json.dumps(value)}")]
