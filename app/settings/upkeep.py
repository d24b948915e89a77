"""Settings of how long things hold, how often they are looked at, and how long they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from app.settings.declaring import level_name, setting


@dataclass(frozen=True)
class Upkeep:
    lease_s: float = setting(15.0, "How long a worker's claim holds without renewal.", within=(1, 3600))
    probe_interval_s: float = setting(5.0, "Between two health probes of a ready replica.", within=(0.05, 3600))
    unhealthy_after: int = setting(3, "Failed probes in a row until a replica is unhealthy.", within=(1, 1000))
    deep_probe_s: float = setting(
        300.0,
        "Between two deep probes (one token) of a replica that finished no request meanwhile; 0: none.",
        within=(0, 86400),
    )
    orphans: str = setting(
        "report",
        "What runs under our mark and has no record is: report(ed), adopt(ed) where it can be, or kill(ed).",
        one_of=("report", "adopt", "kill"),
    )
    drain_s: float = setting(
        30.0,
        "What a stopping replica gets to finish the requests in flight, unless it or the stop says otherwise.",
        within=(0, 86400),
    )
    gateway_silence_s: float = setting(
        86400.0,
        "A gateway not heard of for so long is declared gone, and ports that it may still route to are given away.",
        within=(60, 31_536_000),
    )
    sweep_interval_s: float = setting(5.0, "Between two ticks of the repair sweep.", within=(0.1, 3600))
    look_s: float = setting(
        0.3, "How long a create looks for readiness before it leaves that to the sweep.", within=(0, 60)
    )
    log_bytes: int = setting(16 * 1024 * 1024, "Output kept per attempt, in two files.", within=(4096, 1 << 40))
    register_allow: str = setting(
        "127.0.0.0/8,::1,localhost",
        "Hosts and networks whose servers may be registered: names, addresses and CIDRs between commas.",
        form=r"[A-Za-z0-9._:/,\[\] -]*",
        such_as="names, addresses and CIDRs between commas",
    )
    register_lease_s: float = setting(
        15.0,
        "How long a registration may outlive a network that was cut without a word (from 7 s on: a keep-alive is 5 s).",
        within=(1, 3600),
    )
    register_grace_s: float = setting(
        30.0,
        "How long, beyond the lease, registrations outlive a process of the API: until their servers are back.",
        within=(0, 86400),
    )
    max_registrations: int = setting(20_000, "Registered servers; beyond it 429.", within=(0, 1_000_000))
    retention_days: float = setting(
        30.0, "How long what has ended is kept: see docs/operations.md, Retention.", within=(0.0001, 36500)
    )
    log_level: str = setting(
        "info",
        "debug, info, warning or error.",
        one_of=("debug", "info", "warning", "error"),
        also="LOG_LEVEL",
        also_read=level_name,
    )
    log_format: str = setting("plain", "plain for people, json for collectors.", one_of=("plain", "json"))
