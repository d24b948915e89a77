"""``slurm``: a look at 1,000 jobs costs as many commands as one at 10; a launch beside a bare ``sbatch``.

A cluster of this host's own is started, with two nodes; the jobs wait in its queue, so that nothing else of theirs is
measured. Commands are counted by wrappers of Slurm's own that the backend is told to use.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

from benchmarks.result import Result, alternate, joined, result
from tests.support.slurm import Cluster, lacks, running_cluster
from workers.backends.base import BackendContext, Handle, Launch, Liveness
from workers.backends.slurm import SlurmBackend

JOBS, FEW = 1000, 10
SUBMITS = 10
COMMANDS = ("sbatch", "squeue", "scancel", "sinfo", "sacct")
SWEEP_GOAL, SWEEP_LIMIT_MS = "as many commands for 1,000 jobs as for 10; <= 1 ms a job", 1.0 * JOBS
SUBMIT_GOAL, SUBMIT_OVER_MS = "+ 250 ms", 250.0


def run(rounds: int) -> Result:
    missing = lacks()
    if missing:
        raise SystemExit(missing)
    with tempfile.TemporaryDirectory(prefix="hb-slurm-") as folder, running_cluster() as cluster:
        bench = _Bench(Path(folder), cluster)
        submit = bench.submit(rounds)
        return joined("slurm", [bench.sweep(rounds), submit])


class _Bench:
    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = folder / "count"
        self._options = {**cluster.options(folder / "attempts"), "commands": str(_counted(folder, self._count))}
        # the interpreter itself: what a version manager puts in its place is a shell script that takes longer than it
        self._options["python"] = os.path.realpath(sys.executable)
        self._backend = SlurmBackend(BackendContext(state_dir=folder, options=self._options))
        self._prefix = f"hostler-b{uuid4().hex[:6]}-"

    def sweep(self, rounds: int) -> Result:
        with ThreadPoolExecutor(8) as threads:
            handles = list(threads.map(self._launch, range(JOBS)))
        few = self._commands(handles[:FEW])
        many = self._commands(handles)
        pair = alternate(lambda: self._look_ms(handles), self._squeue_ms, rounds)
        return result(
            "slurm, sweep",
            pair,
            unit="ms",
            goal=SWEEP_GOAL,
            ok=many == few and pair.medians[0] <= SWEEP_LIMIT_MS,
            commands_for_1000=many,
            commands_for_10=few,
            floor="squeue of the same jobs, its output thrown away",
            warmed="one look at 10, one at 1,000",
            pinned="nothing; controller, nodes and caller share the host",
            load_not_the_limit="the jobs wait; the caller is one process",
        )

    def submit(self, rounds: int) -> Result:
        self._launch(-1)
        numbers = iter(range(10_000, 100_000))

        def ours() -> float:
            begun = time.perf_counter()
            for _ in range(SUBMITS):
                self._launch(next(numbers))
            return (time.perf_counter() - begun) / SUBMITS * 1000

        def bare() -> float:
            begun = time.perf_counter()
            for _ in range(SUBMITS):
                self._cluster.ask("sbatch", "--parsable", "--begin=now+1day", stdin="#!/bin/sh\nsleep 1\n")
            return (time.perf_counter() - begun) / SUBMITS * 1000

        pair = alternate(ours, bare, rounds)
        over_ms = pair.medians[0] - pair.medians[1]
        return result(
            "slurm, submit",
            pair,
            unit="ms",
            goal=SUBMIT_GOAL,
            ok=over_ms <= SUBMIT_OVER_MS,
            over_ms=round(over_ms, 1),
            floor="sbatch of a script, nothing kept of it",
            warmed="one launch",
            pinned="nothing",
            load_not_the_limit="one after the other",
        )

    def _launch(self, number: int) -> Handle:
        options = {**self._options, "begin": "now+1day"}
        name = f"{self._prefix}{number}-1"
        return self._backend.launch(Launch(name, str(number), 1, ("sleep", "60"), options=options), timeout_s=60)

    def _look_ms(self, handles: list[Handle]) -> float:
        begun = time.perf_counter()
        seen = self._backend.inspect(handles, timeout_s=30)
        took_ms = (time.perf_counter() - begun) * 1000
        assert all(item.liveness is Liveness.QUEUED for item in seen), "a job does not wait as it should"
        return took_ms

    def _squeue_ms(self) -> float:
        begun = time.perf_counter()
        self._cluster.ask("squeue", "-h", "--states=all")
        return (time.perf_counter() - begun) * 1000

    def _commands(self, handles: list[Handle]) -> int:
        self._count.write_text("")
        self._look_ms(handles)
        return len(self._count.read_text().splitlines())


def _counted(folder: Path, count: Path) -> Path:
    """A folder of Slurm's commands, each of which leaves a line before it does its work."""
    commands = folder / "commands"
    commands.mkdir()
    for name in COMMANDS:
        path = commands / name
        path.write_text(f'#!/bin/sh\necho {name} >> "{count}"\nexec /usr/bin/{name} "$@"\n')
        path.chmod(stat.S_IRWXU)
    return commands
