"""Workers that die or freeze at a chosen line: ``python -m tests.faults.stepper FOLDER`` forks one per JSON line read.

A case is ``{"id", "act", "replica"?, "stop_at"?: [file, line], "call"?: [name, when], "pool"?, "signal"?}``.
The fork writes ``FOLDER/<id>.replica`` before it acts and ``FOLDER/<id>.done`` with the outcome if it comes that far;
this process answers each line with the fork's pid and reaps it. It runs as a process of its own, because forking a
process that has threads and connections is no fair start for a worker.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from app.settings import Settings
from app.usecases import reconciling, services
from app.usecases.context import Actor, Idempotency
from app.usecases.creates import request_create
from app.usecases.stops import request_stop
from workers.bootstrap import Runtime
from workers.launching import carry_out_launch
from workers.stopping import carry_out_stop

ROOT = Path(__file__).resolve().parents[2]
#: Where lines are counted, per act.
FILES = {
    "launch": ("workers/launching.py", "app/usecases/launches.py", "app/usecases/launch_claims.py"),
    "stop": ("workers/stopping.py", "app/usecases/claims.py", "app/usecases/ends.py"),
    "service": (
        "app/usecases/service_creates.py",
        "app/usecases/service_asking.py",
        "app/usecases/reconciling.py",
        "app/usecases/service_acts.py",
        "app/usecases/service_maker.py",
    ),
    "reconcile": ("app/usecases/reconciling.py", "app/usecases/service_acts.py", "app/usecases/stops.py"),
}
POOL = "faults"


class SilentBell:
    """Rings nobody, so that the fork and not the crew answers; as if the bell were lost."""

    def ring(self, verb: str, queue: str, **scope: str) -> None: ...

    def ring_now(self, verb: str, queue: str, **scope: str) -> bool:
        return True

    def close(self) -> None: ...


def main(folder: Path) -> None:
    settings = Settings.load()
    signal.signal(signal.SIGCHLD, _reap)
    for line in sys.stdin:
        case = json.loads(line)
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _run(settings, folder, case)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _reap(*_: object) -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return


def _run(settings: Settings, folder: Path, case: dict[str, Any]) -> None:
    outcome: dict[str, Any] = {}
    try:
        outcome = _carry_out(settings, folder, case)
    except BaseException:  # noqa: BLE001 - the fork must end here whatever happened
        outcome = {"error": traceback.format_exc()}
    finally:
        _write(folder / f"{case['id']}.done", json.dumps(outcome))
        os._exit(0)


def _carry_out(settings: Settings, folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    runtime = Runtime(settings, "worker")
    runtime.ctx._doorbell = SilentBell()  # type: ignore[assignment]
    actor = Actor(case["actor"], "tester", "admin")
    gate = folder / case["gate"] if case.get("gate") else None
    replica = case.get("replica")
    if case["act"] == "launch" and replica is None:
        body = {"server_mode": "replica_mock", "model_name": "m", "pool": POOL}
        replica = request_create(runtime.ctx, actor, body | case.get("body", {})).replica_id
    elif case["act"] == "stop":
        request_stop(runtime.ctx, actor, replica, grace_s=5)
    _write(folder / f"{case['id']}.replica", replica or "")
    if gate is not None:
        while not gate.exists():
            time.sleep(0.0005)
    if "call" in case:
        _signal_at_call(*case["call"], case["signal"])
    act: Callable[[], str] = {
        "launch": lambda: carry_out_launch(runtime, None if case.get("replica") else case.get("pool", POOL)),
        "stop": lambda: carry_out_stop(runtime, None),
        "service": lambda: (
            services.create(
                runtime.ctx, actor, case["body"], Idempotency(case["id"], "POST", "/api/v1/services", "")
            ).service_id
        ),
        "reconcile": lambda: str(reconciling.sweep(runtime.ctx)),
    }[case["act"]]
    lines: dict[tuple[str, int], None] = {}
    if "stop_at" in case:
        sys.settrace(_tracer(case["act"], tuple(case["stop_at"]), case["signal"], lines))
    elif case.get("list_lines"):
        sys.settrace(_tracer(case["act"], None, 0, lines))
    outcome = act()
    sys.settrace(None)
    return {"outcome": outcome, "replica": replica, "lines": list(lines)}


def _tracer(act: str, place: tuple[str, int] | None, number: int, lines: dict[tuple[str, int], None]) -> Any:
    names = {str(ROOT / name): name for name in FILES[act]}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        name = names.get(frame.f_code.co_filename)
        if name is None:
            return None
        if event == "line":
            here = (name, frame.f_lineno)
            lines.setdefault(here)
            if here == place:
                sys.settrace(None)
                os.kill(os.getpid(), number)
                return None
        return trace

    return trace


def _signal_at_call(path: str, when: str, number: int) -> None:
    """Before or after the first call of ``module:dotted.name`` this process signals itself."""
    module, _, dotted = path.partition(":")
    *owners, name = dotted.split(".")
    owner: Any = importlib.import_module(module)
    for part in owners:
        owner = getattr(owner, part)
    original, used = getattr(owner, name), []

    def wrapped(*arguments: Any, **named: Any) -> Any:
        first = not used
        used.append(1)
        if first and when == "before":
            os.kill(os.getpid(), number)
        result = original(*arguments, **named)
        if first and when == "after":
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, wrapped)


def _write(path: Path, content: str) -> None:
    draft = path.with_name(path.name + ".new")
    draft.write_text(content)
    draft.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
