"""What a daemon is asked to make: GPUs, ports, limits, paths. No daemon is needed to look at the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from app.domain.placeholders import HOST_LATER, PORT_LATER
from workers.backends.base import Launch, LaunchRefused
from workers.backends.docker_config import container_config, kept_folders, strayed_mount
from workers.backends.docker_options import OPTIONS_SCHEMA, image_of
from workers.backends.docker_pulling import Progress

HOME = Path("/state/containers/n-1/run-0/home")


def config(launch: Launch | None = None, *, is_podman: bool = False, **options: Any) -> dict[str, Any]:
    plan = launch or Launch("n-1", "n", 1, ("engine", "--port", "7"), port=7, options=options)
    return container_config(
        plan,
        image="image:1",
        image_env={"PATH": "/opt/bin:/bin"},
        home=HOME,
        state_dir=Path("/state"),
        user="7:8",
        log_bytes=1000,
        is_podman=is_podman,
    )


def test_argv_is_run_as_it_is_whatever_the_image_would_start() -> None:
    made = config()
    assert (made["Entrypoint"], made["Cmd"]) == (["engine"], ["--port", "7"])
    assert made["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert made["HostConfig"]["SecurityOpt"] == ["no-new-privileges"]
    assert made["User"] == "7:8"


@pytest.mark.parametrize(
    "requests, wanted, visible",
    [
        (
            "nvidia",
            {"Driver": "nvidia", "DeviceIDs": ["1", "3"], "Capabilities": [["gpu", "compute", "utility"]]},
            "1,3",
        ),
        ("cdi", {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=1", "nvidia.com/gpu=3"]}, "void"),
    ],
)
def test_leased_gpus_are_asked_for_and_numbered_anew_inside(requests: str, wanted: Any, visible: str) -> None:
    plan = Launch("n-1", "n", 1, ("engine",), gpus=(1, 3), options={"gpu_requests": requests})
    made = config(plan)
    assert made["HostConfig"]["DeviceRequests"] == [wanted]
    assert {"CUDA_VISIBLE_DEVICES=0,1", f"NVIDIA_VISIBLE_DEVICES={visible}"} <= set(made["Env"])


def test_without_leased_gpus_an_image_that_wants_all_of_them_gets_none() -> None:
    made = config()
    assert "DeviceRequests" not in made["HostConfig"]
    assert {"CUDA_VISIBLE_DEVICES=", "NVIDIA_VISIBLE_DEVICES=void"} <= set(made["Env"])


def test_on_the_hosts_network_the_engine_binds_its_own_address() -> None:
    plan = Launch("n-1", "n", 1, ("e", f"{HOST_LATER}:{PORT_LATER}"), host="10.0.0.5", port=7)
    made = config(plan)
    assert made["Cmd"] == ["10.0.0.5:7"]
    assert made["HostConfig"]["NetworkMode"] == "host"
    assert "PortBindings" not in made["HostConfig"]


def test_on_another_network_the_leased_port_alone_leads_to_it() -> None:
    plan = Launch("n-1", "n", 1, ("e", HOST_LATER), host="10.0.0.5", port=7, options={"network": "bridge"})
    made = config(plan)
    assert made["Cmd"] == ["0.0.0.0"]
    assert made["HostConfig"]["PortBindings"] == {"7/tcp": [{"HostIp": "10.0.0.5", "HostPort": "7"}]}
    assert made["ExposedPorts"] == {"7/tcp": {}}


def test_limits_are_those_of_the_options() -> None:
    made = config(memory_bytes=2**30, cpus=2.5, pids=9, shm_bytes=2**20)["HostConfig"]
    assert (made["Memory"], made["MemorySwap"], made["NanoCpus"]) == (2**30, 2**30, 2_500_000_000)
    assert (made["PidsLimit"], made["ShmSize"]) == (9, 2**20)
    assert {"Memory", "NanoCpus", "PidsLimit", "ShmSize"}.isdisjoint(config()["HostConfig"])


def test_output_is_bounded_by_either_daemons_means() -> None:
    assert config()["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "500", "max-file": "2"}}
    assert config(is_podman=True)["HostConfig"]["LogConfig"]["Config"] == {"max-size": "1000"}


def test_paths_have_their_names_inside() -> None:
    path_map = {"/venv": "/opt/hostler", "/venv/deep": "/deep"}
    plan = Launch("n-1", "n", 1, ("/venv/e", "{folder}/c"), env={"A": "/venv/x"}, options={"path_map": path_map})
    made = config(plan)
    assert (made["Entrypoint"], made["Cmd"]) == (["/opt/hostler/e"], [f"{HOME}/c"])
    assert "A=/opt/hostler/x" in made["Env"]


def test_a_path_of_the_launch_is_laid_over_the_images() -> None:
    plan = Launch("n-1", "n", 1, ("e",), env={"PATH": "/mine:{path}"})
    assert "PATH=/mine:/opt/bin:/bin" in config(plan)["Env"]
    assert not [one for one in config()["Env"] if one.startswith("PATH=")]


def test_of_the_stacks_folder_only_what_an_engine_keeps_is_mounted() -> None:
    words = ["--cache=/state/cache/hf", "/state/data/svc.1/collections", "/state/secrets/admin-key", "/state/cachet"]
    assert [mount.target for mount in kept_folders(words, Path("/state"))] == ["/state/cache", "/state/data/svc.1"]


def test_every_option_is_described_and_what_decides_is_an_admins() -> None:
    free = {name for name, one in OPTIONS_SCHEMA["properties"].items() if not one.get("x-admin")}
    assert all(one["description"] for one in OPTIONS_SCHEMA["properties"].values())
    assert free == {"mounts", "log_bytes"}


def test_a_pool_without_an_image_is_told() -> None:
    with pytest.raises(LaunchRefused, match="no image is named"):
        image_of({})


def test_progress_of_a_pull_in_one_line() -> None:
    progress = Progress("image:1")
    assert progress.words() == "pulling image image:1"
    for told in (
        {"status": "Pulling fs layer", "id": "a"},
        {"status": "Already exists", "id": "b"},
        {"status": "Downloading", "id": "a", "progressDetail": {"current": 5 * 2**20, "total": 9 * 2**20}},
        {"status": "Digest: sha256:0"},
    ):
        progress.hear(told)
    assert progress.words() == "pulling image image:1: 1 of 2 layers, 5 of 9 MiB"
    progress.hear({"status": "Pull complete", "id": "a"})
    assert progress.words() == "pulling image image:1: 2 of 2 layers, 9 of 9 MiB"


@pytest.mark.parametrize(
    "path",
    [
        "/tmp/zz,source=/etc", "/a=b", "/a:b", '/a"b', "/a'b", "/a\\b", "/a\n", "/a\tb", "/a b", "/a\x00", "/a\x7f",
        "/a/../b", "/..", "/a/.", "/./a", "//a", "/a//b", "/a/", "/", "a", "", "/a\u2028b",
    ],
)  # fmt: skip
def test_a_mount_whose_path_is_not_plain_is_refused_by_schema_and_backend(path: str, tmp_path: Path) -> None:
    allowed = [{"source": "/", "read_only": False}]
    source = tmp_path / "models"
    source.mkdir()
    for mount in ({"source": path}, {"source": str(source), "target": path}):
        assert not Draft202012Validator(OPTIONS_SCHEMA).is_valid({"mounts": [mount]})
        with pytest.raises(LaunchRefused, match="no plain absolute path"):
            config(mounts=[mount], allowed_mounts=allowed)


@pytest.mark.parametrize("target", ["/models", "/a/..b", "/a/.b", "/m/Qwen2.5-7B_@1+x%~"])
def test_a_mount_of_plain_paths_is_made(target: str, tmp_path: Path) -> None:
    options = {"mounts": [{"source": str(tmp_path), "target": target}], "allowed_mounts": [{"source": str(tmp_path)}]}
    assert Draft202012Validator(OPTIONS_SCHEMA).is_valid(options)
    made = config(**options)["HostConfig"]["Mounts"]
    assert made[1] == {"Type": "bind", "Source": str(tmp_path), "Target": target, "ReadOnly": True}


def test_a_link_to_a_folder_whose_name_says_more_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "x,source=").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "x,source=")
    with pytest.raises(LaunchRefused, match="no plain path"):
        config(mounts=[{"source": str(tmp_path / "link")}], allowed_mounts=[{"source": str(tmp_path)}])


def test_nothing_is_mounted_over_the_attempts_own_folder(tmp_path: Path) -> None:
    for target in (HOME, HOME / "deep", Path("/state")):
        mounts = [{"source": str(tmp_path), "target": str(target)}]
        with pytest.raises(LaunchRefused, match="own folder"):
            config(mounts=mounts, allowed_mounts=[{"source": str(tmp_path)}])


def test_no_word_of_a_launch_has_more_of_the_stacks_folder_mounted() -> None:
    words = ["/state/data/..", "/state/data/../secrets", "/state/data/.", "/state/data/..x"]
    assert [mount.source for mount in kept_folders(words, Path("/state"))] == ["/state/data/..x"]


def test_mounts_that_a_daemon_made_otherwise_are_told() -> None:
    asked = [{"Source": "/models", "Target": "/m", "ReadOnly": True}]

    def made(source: str, target: str, writable: bool = False) -> dict[str, Any]:
        return {"Mounts": [{"Type": "bind", "Source": source, "Destination": target, "RW": writable}]}

    assert strayed_mount(asked, made("/models", "/m")) == ""
    assert "/etc" in strayed_mount(asked, made("/etc", "/m"))
    assert "nothing is mounted" in strayed_mount(asked, made("/models", "/n"))
    assert "may be written" in strayed_mount(asked, made("/models", "/m", writable=True))
    assert "nothing is mounted" in strayed_mount(asked, {})
