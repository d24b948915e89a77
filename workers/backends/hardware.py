"""What this host has: CPUs, memory, GPUs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)


def describe(declared_gpus: int = -1) -> dict[str, Any]:
    """``cpus``, ``memory_bytes``, ``gpus`` (index, name, memory_bytes, uuid) and ``gpu_source``.

    ``declared_gpus`` of 0 or more is believed (``HOSTLER_NODE_GPUS``); below 0 the driver is asked.
    """
    gpus, source = _driver_gpus(), "driver"
    if declared_gpus >= 0:
        source = "declared"
        known = {gpu["index"]: gpu for gpu in gpus}
        gpus = [known.get(index, {"index": index}) for index in range(declared_gpus)]
    elif not gpus:
        source = "none"
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": _memory_bytes(),
        "gpus": gpus,
        "gpu_source": source,
    }


def _driver_gpus() -> list[dict[str, Any]]:
    import pynvml  # 8,000 lines: they would cost each call on a host behind SSH, where this is asked seldom

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []  # no driver here
    except pynvml.NVMLError as error:
        # such as a library that was upgraded under the loaded driver, until the next reboot
        log.warning("the NVIDIA driver does not answer (%s): this host counts as one without GPUs", error)
        return []
    try:
        return [gpu for index in range(_driver_count(pynvml)) if (gpu := _gpu(pynvml, index)) is not None]
    finally:
        pynvml.nvmlShutdown()


def _driver_count(pynvml: ModuleType) -> int:
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError as error:
        log.warning("the NVIDIA driver does not say how many GPUs there are: %s", error)
        return 0


def _gpu(pynvml: ModuleType, index: int) -> dict[str, Any] | None:
    """None for a device that fell off the bus, or that we may not use: the others are as good as before."""
    try:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        seen = {"index": index, "name": pynvml.nvmlDeviceGetName(device), "uuid": pynvml.nvmlDeviceGetUUID(device)}
    except pynvml.NVMLError as error:
        log.warning("GPU %d is left out: %s", index, error)
        return None
    try:
        return seen | {"memory_bytes": int(pynvml.nvmlDeviceGetMemoryInfo(device).total)}
    except pynvml.NVMLError_NotSupported:
        # it shares the host's memory
        return seen


def _memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0
