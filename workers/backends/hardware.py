"""What this host has: CPUs, memory, GPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pynvml


def describe(declared_gpus: int = -1) -> dict[str, Any]:
    """``cpus``, ``memory_bytes``, ``gpus`` (index, name, memory_bytes, uuid) and ``gpu_source``.

    ``declared_gpus`` of 0 or more is believed (``HOSTLER_NODE_GPUS``); below 0 the driver is asked.
    """
    gpus, source = _driver_gpus(), "driver"
    if declared_gpus >= 0:
        source = "declared"
        gpus = (gpus + [{"index": index} for index in range(len(gpus), declared_gpus)])[:declared_gpus]
    elif not gpus:
        source = "none"
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "gpu_source": source,
    }


def _driver_gpus() -> list[dict[str, Any]]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []  # no driver here
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []  # a driver that does not answer has no usable devices
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> dict[str, Any]:
    device = pynvml.nvmlDeviceGetHandleByIndex(index)
    return {
        "index": index,
        "name": pynvml.nvmlDeviceGetName(device),
        "uuid": pynvml.nvmlDeviceGetUUID(device),
        "memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(device).total),
    }


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
