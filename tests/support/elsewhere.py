"""A small cluster: real processes of this host, behind a backend that queues them, chooses their ports, and moves them.

What a test makes of it stands in files, so that every instance of the backend sees the same.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.domain.lifecycle import Reason
from app.domain.placeholders import put_address
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    BackendUnavailable,
    Fingerprint,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.process import ProcessBackend

HOST = "127.0.0.1"


class ElsewhereBackend(ProcessBackend):
    """A job is ``<state>/elsewhere/<place>/NAME.json``: ``{"run": 0, "launch"}``; run 0 is queued, each further one is
    a process of its own (a requeue), under the name and its number. ``FILE.said`` overrides what is seen."""

    name = "elsewhere"
    summary = "Tests' own cluster."
    host_bound = False
    place_options = ("site",)
    options_schema: Mapping[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "site": {"type": "string", "description": "Which cluster.", "x-admin": True},
            "account": {"type": "string", "description": "Who pays."},
            "image": {"type": "string", "description": "What it runs in."},
            "cpus": {"type": "integer", "minimum": 1, "description": "CPUs."},
            "memory": {"type": "string", "description": "Memory."},
            "time_limit": {"type": "integer", "minimum": 1, "description": "Minutes."},
            "extra": {"type": "array", "items": {"type": "string"}, "description": "More flags."},
            "allow": {"type": "object", "x-admin": True, "description": "What requests may ask for."},
        },
    }

    def __init__(self, context: BackendContext) -> None:
        super().__init__(context)
        self.folder = context.state_dir / "elsewhere" / str(context.options.get("site", "here"))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        return Fingerprint(not self._is("away"), "a cluster of tests")

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        self._ask()
        job = self.job(name)
        return Handle(self.name, name, {"job_id": job["job_id"]}) if job and not job.get("sealed") else None

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        self._ask()
        job = self.job(launch.name)
        if job is not None:
            raise LaunchRefused("its name is taken")
        assert launch.port is None
        jobs = [*self.folder.glob("*.json")]
        told = {
            "job_id": str(1000 + len(jobs)),
            "run": 0,
            "argv": list(launch.argv),
            "env": dict(launch.env),
            "files": dict(launch.files),
            "replica_id": launch.replica_id,
            "nodes": launch.nodes,
            "gpus": list(launch.gpus),
            "options": dict(launch.options),
            "record": dict(launch.record),
        }
        self.keep(launch.name, told)
        if self._is("dies"):
            raise SystemExit("the launcher dies after it submitted")
        if not self._is("full"):
            self.run(launch.name)
        self.set("away", self._is("deaf"))
        return Handle(self.name, launch.name, {"job_id": told["job_id"]})

    def run(self, name: str) -> None:
        """Start what is queued, at a port that nobody chose before."""
        job = self.job(name)
        assert job is not None
        with socket.create_server((HOST, 0)) as found:
            port = found.getsockname()[1]
        self.keep(name, {**job, "run": job["run"] + 1, "port": port})
        super().launch(
            Launch(
                name=f"{name}.{job['run'] + 1}",
                replica_id=job["replica_id"],
                attempt=1,
                argv=tuple(put_address(one, HOST, port) for one in job["argv"]),
                env={key: put_address(one, HOST, port) for key, one in job["env"].items()},
                files={key: put_address(one, HOST, port) for key, one in job["files"].items()},
                port=port,
            )
        )

    def requeue(self, name: str) -> None:
        """Take its host away; it is queued again."""
        self._end(name)
        job = self.job(name)
        assert job is not None
        self.keep(name, {**job, "port": None})

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        self._ask()
        return [self._see(handle.name) for handle in handles]

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        self._ask()
        job = self.job(handle.name)
        if job is None:
            self.keep(handle.name, {"job_id": "0", "run": 0, "sealed": True})
            return Observation(Liveness.ABSENT)
        if self._is("mute"):
            # it heard, and says no more
            self.set("away")
            return Observation(Liveness.RUNNING)
        self._end(handle.name)
        self.keep(handle.name, {**job, "ended": True})
        return self._see(handle.name)

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Any:
        job = self.job(handle.name)
        return super().logs(replace(handle, name=f"{handle.name}.{job['run'] if job else 0}"), tail=tail)

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        job = self.job(handle.name)
        return super().read_log(replace(handle, name=f"{handle.name}.{job['run'] if job else 0}"), place, limit)

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        job = self.job(handle.name)
        return super().tail_place(replace(handle, name=f"{handle.name}.{job['run'] if job else 0}"), lines)

    def recall(self, name: str) -> Mapping[str, Any] | None:
        return (self.job(name) or {}).get("record")

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        (self.folder / f"{handle.name}.json").unlink(missing_ok=True)

    def watch_fd(self, handle: Handle) -> int | None:
        return None

    def list_marked(self, prefix: str) -> list[str]:
        self._ask()
        return sorted(path.stem for path in self.folder.glob("*.json") if path.name.startswith(prefix))

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        self._ask()
        return []

    def set(self, word: str, value: bool = True) -> None:
        """``full``: it queues what comes. ``away``: it cannot be asked. ``dies``: with the next launch. ``deaf``:
        away once it took one. ``mute``: away once it was asked to stop something."""
        path = self._word(word)
        path.touch() if value else path.unlink(missing_ok=True)

    def say(self, name: str, **seen: Any) -> None:
        """What is seen of it from now on, whatever is so."""
        (self.folder / f"{name}.said").write_text(json.dumps(seen))

    def job(self, name: str) -> dict[str, Any] | None:
        path = self.folder / f"{name}.json"
        return json.loads(path.read_text()) if path.exists() else None

    def keep(self, name: str, job: Mapping[str, Any]) -> None:
        path = self.folder / f"{name}.json"
        path.with_suffix(".new").write_text(json.dumps(dict(job)))
        path.with_suffix(".new").rename(path)

    def _see(self, name: str) -> Observation:
        said = self.folder / f"{name}.said"
        if said.exists():
            seen = json.loads(said.read_text())
            reason = seen.pop("reason", None)
            return Observation(Liveness(seen.pop("liveness")), reason=Reason(reason) if reason else None, **seen)
        job = self.job(name)
        if job is None or job.get("sealed"):
            return Observation(Liveness.ABSENT)
        told = {"job_id": job["job_id"], "state": "RUNNING", "restarts": max(0, job["run"] - 1)}
        if job.get("ended"):
            return Observation(Liveness.EXITED, reason=Reason.CANCELLED, told={**told, "state": "CANCELLED"})
        if job.get("port") is None:
            told |= {"state": "PENDING", "why": "Resources", "expected_start": "2030-01-01T00:00:00+00:00"}
            return Observation(Liveness.QUEUED, message="waits for resources", told=told)
        seen = super().inspect([Handle("process", f"{name}.{job['run']}")])[0]
        return replace(seen, host=HOST, port=job["port"], told=told)

    def _end(self, name: str) -> None:
        job = self.job(name)
        if job and job["run"]:
            handle = Handle("process", f"{name}.{job['run']}")
            while not super().stop(handle, grace_s=0, force=True).liveness.gone:
                continue

    def _word(self, word: str) -> Path:
        return self.folder / f".{word}"

    def _is(self, word: str) -> bool:
        return self._word(word).exists()

    def _ask(self) -> None:
        if self._is("away"):
            raise BackendUnavailable("the cluster cannot be asked")
