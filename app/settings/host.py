"""Settings of this host in the stack, and of how much its processes take on."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.endpoints import parse_host
from app.settings.declaring import POOL, setting


@dataclass(frozen=True)
class Host:
    node_name: str = setting(
        "",
        "Name of this host in the stack; default: the host's name.",
        form=r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?",
        such_as="a host's name",
    )
    node_address: str = setting(
        "127.0.0.1",
        "Address of this host on which engines listen and at which they are reached; a name is looked up once, at the"
        " start. Nobody elsewhere reaches a loopback address.",
        read_by=parse_host,
    )
    node_pools: str = setting(
        "",
        "Pools, between commas, whose work the workers of this host do; default: every pool's.",
        form=rf"{POOL}(\s*,\s*{POOL})*",
        such_as="names of pools between commas",
    )
    node_gpus: int = setting(-1, "GPUs of this host; -1 asks the driver.", within=(-1, 1024))
    max_wait_s: float = setting(300.0, "Longest wait of a request that waits.", within=(0, 86400))
    max_queued_per_pool: int = setting(20000, "Queued creates per pool; beyond it 429.", within=(0, 10_000_000))
    max_body_bytes: int = setting(1024 * 1024, "Largest request body of the control API.", within=(1024, 1 << 30))
    batch_concurrency: int = setting(8, "Items of one batch of the model API in work at once.", within=(1, 256))
    web_workers: int = setting(2, "Processes of the API.", within=(1, 256))
    worker_concurrency: int = setting(4, "Launches a worker carries out at once.", within=(1, 1024))
    control_concurrency: int = setting(2, "Stops and probes a control worker carries out at once.", within=(1, 1024))
    task_events: bool = setting(True, "Send Celery's events, which Flower shows.")
    flower_port: int = setting(
        0, "Loopback port on which Flower also listens; 0: none, it is at /flower/ of the gateway.", within=(0, 65535)
    )
