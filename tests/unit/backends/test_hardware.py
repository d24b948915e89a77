"""What a host says of itself, with and without a driver."""

from __future__ import annotations

import os

import pytest

from workers.backends import hardware


def test_cpus_and_memory_are_this_hosts() -> None:
    seen = hardware.describe()
    assert seen["cpus"] == len(os.sched_getaffinity(0))
    assert seen["memory_bytes"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_declared_gpus_are_believed() -> None:
    seen = hardware.describe(declared_gpus=4)
    assert [gpu["index"] for gpu in seen["gpus"]] == [0, 1, 2, 3]
    assert seen["gpu_source"] == "declared"
    assert hardware.describe(declared_gpus=0)["gpus"] == []


def test_what_the_driver_says_is_kept_for_declared_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_driver_gpus", lambda: [{"index": 0, "name": "A"}, {"index": 1, "name": "B"}])
    assert hardware.describe()["gpu_source"] == "driver"
    assert len(hardware.describe()["gpus"]) == 2
    assert hardware.describe(declared_gpus=3)["gpus"] == [
        {"index": 0, "name": "A"},
        {"index": 1, "name": "B"},
        {"index": 2},
    ]
    assert hardware.describe(declared_gpus=1)["gpus"] == [{"index": 0, "name": "A"}]


def test_a_gpu_that_is_gone_does_not_shift_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_driver_gpus", lambda: [{"index": 0, "name": "A"}, {"index": 2, "name": "C"}])
    assert [gpu["index"] for gpu in hardware.describe()["gpus"]] == [0, 2]
    assert hardware.describe(declared_gpus=3)["gpus"] == [
        {"index": 0, "name": "A"},
        {"index": 1},
        {"index": 2, "name": "C"},
    ]
