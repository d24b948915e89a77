"""What a stack holds at one moment: memory, descriptors and threads of each role, and the size of each table."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import psutil
import psycopg

from app.stack.layout import Layout
from app.stack.processes import Found, control_plane, engines
from app.stack.roles import ENGINE, SHIM
from benchmarks.stack import Stack

MIB = 1024 * 1024
#: What grows, how much of it an hour is no growth worth the word: the share of its mean, and the least.
LIMITS = {"rss_mib": (0.02, 2.0), "own_mib": (0.02, 2.0), "fds": (0.02, 5.0), "threads": (0.02, 2.0)}
TABLE_LIMITS = {"rows": (0.02, 100.0), "mib": (0.02, 1.0)}
FILE_LIMIT = (0.02, 20.0)

Sample = dict[str, float]


class Sampler:
    """Looks at one stack. A sample is ``{"role web rss_mib": 310.0, "table events rows": 5120.0, ...}``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._layout = Layout(stack.state_dir)
        self._database = psycopg.connect(stack.database_url, autocommit=True)
        query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
        self._tables = [str(name) for (name,) in self._database.execute(query)]

    def sample(self) -> Sample:
        return {**self._processes(), **self._rows(), **self._files()}

    def close(self) -> None:
        self._database.close()

    def _processes(self) -> Sample:
        totals: dict[str, float] = defaultdict(float)
        for one in [*control_plane(self._layout), *engines(self._layout)]:
            for name, value in _facts(one).items():
                # engines come and go with the churn: what one of them costs is the engine's affair
                if one.role not in (ENGINE, SHIM) or name == "processes":
                    totals[f"role {one.role} {name}"] += value
        return totals

    def _rows(self) -> Sample:
        found: Sample = {}
        for table in self._tables:
            query = f"SELECT (SELECT count(*) FROM {table}), pg_total_relation_size('{table}')"
            row = self._database.execute(query.encode()).fetchone()
            assert row is not None
            found[f"table {table} rows"] = float(row[0])
            found[f"table {table} mib"] = row[1] / MIB
        return found

    def _files(self) -> Sample:
        folders = {"attempts": self._layout.attempts, "mock": self._layout.state_dir / "mock", "run": self._layout.run}
        return {f"files {name}": float(_count(folder)) for name, folder in folders.items()}


def limit(series: str, mean: float) -> float:
    """Growth an hour that counts as none."""
    kind, _, name = series.rpartition(" ")
    if kind.startswith("role"):
        share, least = LIMITS.get(name, FILE_LIMIT)
    elif kind.startswith("table"):
        share, least = TABLE_LIMITS[name]
    else:
        share, least = FILE_LIMIT
    return max(share * abs(mean), least)


def _facts(one: Found) -> Sample:
    try:
        with one.process.oneshot():
            memory = one.process.memory_info()
            return {
                "rss_mib": memory.rss / MIB,
                # without pages of files and of Postgres's buffers, which each of its processes would count again
                "own_mib": (memory.rss - memory.shared) / MIB,
                "fds": float(one.process.num_fds()),
                "threads": float(one.process.num_threads()),
                "processes": 1.0,
            }
    except psutil.NoSuchProcess:
        return {}


def _count(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("*")) if folder.exists() else 0
