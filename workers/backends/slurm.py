"""Runs engines as jobs of a Slurm cluster, whose commands are given on this host or on one that is reached by SSH.

An attempt is a folder that its host and the nodes share (``slurm_there.py``) and a job of the same name, or a seat of a
job that several share (``slurm_seats.py``). The folder
appears by one ``rename`` before the job is submitted, so that the name is taken by one launcher; and the job, before it
starts anything, looks whether the folder is still that launch's (``slurm_job.py``). So a submission that nobody knows
the outcome of can be made again: the job of the first one finds that it is not wanted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import shlex
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.domain.path_maps import map_path
from app.domain.slurm_script import Job, NoDirective, comment_of, container_argv, render_script
from app.domain.slurm_shared import SEATS, is_of_other_folder, render_seat, seats_of
from workers.backends.base import (
    LOG_PART_BYTES,
    BackendContext,
    BackendError,
    BackendUnavailable,
    Fingerprint,
    Handle,
    Launch,
    LaunchRefused,
    Liveness,
    LogPart,
    Observation,
)
from workers.backends.far_clock import now_ns
from workers.backends.options import DEFAULT_PATH, DEFAULT_PORTS
from workers.backends.output import as_lines, as_text
from workers.backends.program import check_words
from workers.backends.slurm_asking import JOB_SOURCE, Host, packed, packed_text
from workers.backends.slurm_cluster import describe, lacking
from workers.backends.slurm_options import OPTIONS_SCHEMA
from workers.backends.slurm_queue import QueuedJob, read_accounting
from workers.backends.slurm_sharing import share_of
from workers.backends.slurm_verdict import job_name, observe
from workers.transports.options import SshOptions, open_transport

log = logging.getLogger(__name__)

#: What killed programs of ours left half made is removed when it is older than this.
STALE_S = 600.0
#: Names that an engine's file cannot have.
_RESERVED = frozenset(
    {
        "launch", "launch.json", "script", "private", "submit.lock", "job.py", "job.json", "owner.json", "run.json",
        "term.json", "exit.json", "stop.json", "kill.json", "over.json", "seat.json", "sealed", "slurm.out", "alive",
    }
)  # fmt: skip


#: Where a log goes on: in what Slurm said before an engine began, or in the engine's own output.
_PLACE = re.compile(r"said-(\d{1,15})|(\d{1,15})", re.ASCII)


class SlurmBackend:
    name = "slurm"
    summary = "Jobs of a Slurm cluster, submitted on this host or over SSH."
    host_bound = False
    serves_http = True
    queues = True
    puts_address = True
    lacks: frozenset[str] = frozenset()
    place_options: tuple[str, ...] = ("ssh", "folder", "slurm_conf", "commands", "python", "squeue")
    options_schema: Mapping[str, Any] = OPTIONS_SCHEMA

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._host = Host(open_transport(context.options.get("ssh"), context.run_dir), context.options)

    def fingerprint(self, options: Mapping[str, Any], timeout_s: float = 5) -> Fingerprint:
        try:
            told = self._host.ask("describe", timeout_s)
        except BackendError as error:
            return Fingerprint(False, str(error), fix=self._trial())
        partition = options.get("partition")
        seen = describe(told["nodes"], partition)
        wrong = lacking(seen, partition, told["folder"])
        return Fingerprint(True, told["version"], seen, wrong, self._trial("sinfo") if wrong else "")

    def _trial(self, command: str = "sinfo --version") -> str:
        """What to type to see what Slurm says where commands are given."""
        ssh, conf = self._context.options.get("ssh"), self._context.options.get("slurm_conf")
        command = f"SLURM_CONF={shlex.quote(conf)} {command}" if conf else command
        return f"{SshOptions.of(ssh).trial.removesuffix(' true')} {command}" if ssh else command

    def prepare(self) -> None:
        return

    def adopt(self, name: str, timeout_s: float = 5) -> Handle | None:
        answer = self._host.look("adopt", timeout_s, name=_name(name))
        attempt = answer["attempt"]
        if not attempt["there"] or "sealed" in attempt:
            return None
        return Handle(self.name, name, attempt.get("job") or {})

    def launch(self, launch: Launch, timeout_s: float = 20) -> Handle:
        deadline_ns = now_ns() + int(timeout_s * 1e9)
        _check(launch)
        greeting = self._host.greet(timeout_s)
        nonce, key = secrets.token_hex(16), secrets.token_hex(32)
        try:
            request = self._request(launch, nonce, key, greeting)
        except NoDirective as error:
            raise LaunchRefused(str(error)) from error
        answer = self._host.ask_by(deadline_ns, "launch", timeout_s, request)
        return Handle(self.name, launch.name, {"job_id": answer["job_id"]})

    def inspect(self, handles: Sequence[Handle], timeout_s: float = 5) -> list[Observation]:
        names = sorted({handle.name for handle in handles if _is_name(handle.name)})
        if not handles:
            return []
        try:
            answer = self._host.look("look", timeout_s, names=names, accounting=True)
        except BackendError as error:
            return [Observation(Liveness.UNKNOWN, message=str(error)) for _ in handles]
        named = _by_name(answer["jobs"])
        seen = [self._observe(handle.name, answer, named) for handle in handles]
        self._end_gone(answer, {handle.name: one for handle, one in zip(handles, seen, strict=True)}, timeout_s)
        return seen

    def stop(self, handle: Handle, *, grace_s: float, force: bool = False, timeout_s: float = 5) -> Observation:
        answer = self._host.look("stop", timeout_s, name=_name(handle.name), grace_s=grace_s, force=force)
        seen = self._observe(handle.name, answer, _by_name(answer["jobs"]))
        self._end_gone(answer, {handle.name: seen}, timeout_s)
        return seen

    def logs(self, handle: Handle, *, tail: int | None = None, timeout_s: float = 5) -> Iterator[str]:
        if tail is not None:
            answer = self._host.ask("log", timeout_s, name=_name(handle.name), tail=tail, limit=4 * 1024 * 1024)
            yield from as_lines(b64decode(answer["data"]))
            return
        rest, place = b"", ""
        while (part := self.read_log(handle, place, 4 * 1024 * 1024, timeout_s)).data:
            place = part.place
            *lines, rest = (rest + part.data).split(b"\n")
            yield from map(as_text, lines)
        if rest:
            yield as_text(rest)

    def read_log(self, handle: Handle, place: str = "", limit: int = LOG_PART_BYTES, timeout_s: float = 5) -> LogPart:
        # an offset in all of its output, over rotations and over the runs that Slurm made of it
        found = _PLACE.fullmatch(place)
        said, offset = (found[1], found[2]) if found else (None, None)
        answer = self._host.ask(
            "log",
            timeout_s,
            name=_name(handle.name),
            place=int(offset) if offset else None,
            said=int(said) if said else 0,
            limit=limit,
        )
        data = b64decode(answer["data"])
        if not data and offset is None:
            return LogPart(data, place)
        next_place = f"said-{answer['said']}" if "said" in answer else str(answer["place"])
        return LogPart(data, next_place, gap=answer["gap"] or (bool(place) and found is None))

    def tail_place(self, handle: Handle, lines: int, timeout_s: float = 5) -> str:
        place = self._host.ask("tail_place", timeout_s, name=_name(handle.name), lines=lines)["place"]
        # before the engine begins, what the shell and Slurm say is all there is
        return "" if place is None else str(place)

    def recall(self, name: str) -> Mapping[str, Any] | None:
        return self._host.ask("recall", 5, name=_name(name))["record"]

    def close(self, handle: Handle, timeout_s: float = 5) -> None:
        (seen,) = self.inspect([handle], timeout_s)
        if not seen.liveness.gone:
            raise BackendError(f"{handle.name} is not gone ({seen.message or seen.liveness}); stop it first")
        self._host.ask("close", timeout_s, name=_name(handle.name))

    def watch_fd(self, handle: Handle) -> int | None:
        return None

    def list_marked(self, prefix: str) -> list[str]:
        answer = self._host.look("list", 10, prefix=prefix)
        if answer["jobs"] is None:
            raise BackendUnavailable(self._host.silence(answer))
        # those that several attempts share are theirs, and end with the last of them; other folders may have some too
        shared = {comment_of(name, nonce) for name, nonce in answer.get("shared", ())}
        running = {
            job.name
            for job in answer["jobs"]
            if not job.over
            and job.name.startswith(prefix)
            and job.comment.startswith(f"hostler:{job.name}:")
            and job.comment not in shared
            and not is_of_other_folder(job.name, answer["root"])
        }
        return sorted({*answer["names"], *running})

    def tidy(self, *, dry_run: bool = False) -> list[str]:
        return self._host.ask("tidy", 10, older_s=STALE_S, dry_run=dry_run)["found"]

    def end_idle(self, prefix: str, timeout_s: float = 10) -> list[str]:
        """Close the jobs of a stack (``prefix`` of its attempts' names) on which no replica has a seat: they end now
        and not after ``job_stay_s``. Returns their names."""
        return self._host.ask("end_idle", timeout_s, prefix=prefix)["ended"]

    def _end_gone(self, answer: Mapping[str, Any], seen: Mapping[str, Observation], timeout_s: float) -> None:
        """No secrets are kept of what is gone, also where Slurm said nothing of its end."""
        attempts = answer["attempts"]
        names = [name for name, one in seen.items() if one.liveness.gone and attempts.get(name, {}).get("secrets")]
        if names:
            try:
                self._host.ask("end", timeout_s, names=names)
            except BackendError as error:
                log.warning("the secrets of %s are removed at the next look: %s", ", ".join(names), error)

    def _observe(
        self, name: str, answer: Mapping[str, Any], named: Mapping[str, Sequence[QueuedJob]] | None
    ) -> Observation:
        if name not in answer["attempts"]:
            return Observation(Liveness.UNKNOWN, message=f"{name!r} is not the name of an attempt")
        attempt = answer["attempts"][name]
        silence = "" if answer["jobs"] is not None else self._host.silence(answer)
        accounted = read_accounting(answer["queue"].get("ended", ""))
        return observe(
            name,
            attempt,
            None if named is None else named.get(job_name(name, attempt), ()),
            silence=silence,
            accounted=accounted,
            now=answer["now"],
        )

    def _request(self, launch: Launch, nonce: str, key: str, greeting: Mapping[str, Any]) -> dict[str, Any]:
        """What the host is asked to do for a launch. Raises NoDirective."""
        options = {**self._context.options, **launch.options}
        plan, job = self._plan(launch, nonce), _job(launch, nonce, greeting["root"])
        files = {"job.py": packed(JOB_SOURCE), "private": packed(_sealed(launch, key))}
        request: dict[str, Any] = {"name": launch.name, "records": {"launch.json": plan}, "files": files}
        if seats_of(options) > 1:
            share = share_of(launch, options, greeting["root"], key)
            plan |= {"argv": container_argv(job.argv, options), "share": share["key"]}
            files["script"] = packed_text(render_seat(job.argv, options))
            return request | {"share": share, "format": greeting["form"]}
        script = render_script(job, options, key)
        files["script"] = packed_text(script.replace(key, ""))
        return request | {"script": packed_text(script)}

    def _plan(self, launch: Launch, nonce: str) -> dict[str, Any]:
        """What the job needs to know, without secrets."""
        options = launch.options
        plan: dict[str, Any] = {
            "name": launch.name,
            "nonce": nonce,
            "gpus": len(launch.gpus),
            "port": launch.port,
            "ports": list(options.get("ports", DEFAULT_PORTS)),
            "network": options.get("network", f"{launch.host}/32" if launch.port is not None else None),
            "log_bytes": options.get("log_bytes", self._context.log_bytes),
            "path": options.get("path", DEFAULT_PATH),
            "passes": list(options.get("passes", ())),
        }
        return plan | ({"record": dict(launch.record)} if launch.record else {})


def _by_name(jobs: Sequence[QueuedJob] | None) -> dict[str, list[QueuedJob]] | None:
    if jobs is None:
        return None
    named: dict[str, list[QueuedJob]] = {}
    for job in jobs:
        named.setdefault(job.name, []).append(job)
    return named


def _job(launch: Launch, nonce: str, root: str) -> Job:
    path_map = launch.options.get("path_map", {})
    return Job(
        name=launch.name,
        replica_id=launch.replica_id,
        attempt=launch.attempt,
        nonce=nonce,
        folder=os.path.join(root, launch.name),
        argv=[map_path(word, path_map) for word in launch.argv],
        gpus=len(launch.gpus),
        nodes=launch.nodes,
    )


def _sealed(launch: Launch, key: str) -> bytes:
    """Environment and files, of no use without the key, which is in the submitted script only.

    They must outlast the job's first run, for Slurm may run it again on another node. The pad is used once.
    """
    path_map = launch.options.get("path_map", {})
    env = {name: map_path(value, path_map) for name, value in launch.env.items()}
    plain = json.dumps({"env": env, "files": dict(launch.files)}).encode("ascii")
    pad = hashlib.shake_256(key.encode()).digest(len(plain))
    return bytes(one ^ other for one, other in zip(plain, pad, strict=True))


def _check(launch: Launch) -> None:
    check_words(launch)
    if launch.nodes > 1 and seats_of(launch.options) > 1:
        raise LaunchRefused(f"a replica on {launch.nodes} nodes shares its job with no other; {SEATS} must be 1")
    if not _is_name(launch.name):
        raise LaunchRefused(f"{launch.name!r} cannot be the name of an attempt")
    for file in launch.files:
        if "/" in file or file.startswith((".", "log-")) or file in _RESERVED | {""}:
            raise LaunchRefused(f"an engine's file cannot be called {file!r}")


def _name(name: str) -> str:
    if not _is_name(name):
        raise BackendError(f"{name!r} is not the name of an attempt")
    return name


def _is_name(name: str) -> bool:
    # commas would be several names to squeue
    return bool(name) and len(name) <= 128 and not name.startswith((".", "-")) and not set(name) & set("/, \n\0|")
