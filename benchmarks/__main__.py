"""``python -m benchmarks NAME [--rounds N] [--json]``, or ``all``."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys

from benchmarks.result import ROUNDS, Result

NAMES = (
    "create",
    "task",
    "urgent",
    "time_to_ready",
    "burst",
    "adopt",
    "death",
    "mass_launch",
    "sweep",
    "list",
    "streams",
    "held",
    "gateway",
    "failover",
    "registry",
    "plan",
    "reconcile",
    "slurm",
)
#: One benchmark may take this long; a hung one must not hold the others.
LIMIT_S = 600
#: To put its stack away when it is told to end.
END_S = 60
#: Takes minutes, or an hour: asked for by name only.
SOAK = "soak"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, SOAK, "all"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least 3 for a number worth telling")
    parser.add_argument("--json", action="store_true", help="print only the JSON object, in one line")
    parser.add_argument("--minutes", type=float, default=15.0, help="soak: how long")
    parser.add_argument("--rate", type=float, default=6.0, help="soak: acts a second, of all clients together")
    parser.add_argument("--samples", default="", metavar="FILE", help="soak: append every sample to this file")
    arguments = parser.parse_args()
    # told to end: no stack must be left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if arguments.name == "all":
        return _all(arguments.rounds)
    module = importlib.import_module(f"benchmarks.{_module(arguments.name)}")
    more = (arguments.minutes, arguments.rate, arguments.samples) if arguments.name == SOAK else ()
    outcome: Result = module.run(arguments.rounds, *more)
    if not arguments.json:
        _explain(outcome)
    print(json.dumps(outcome.to_json()), flush=True)
    return 0


def _module(name: str) -> str:
    return "listing" if name == "list" else name


def _explain(outcome: Result) -> None:
    for part in outcome.parts or (outcome,):
        mark = "ok" if part.ok else "MISSED"
        print(
            f"{part.name:<24} ours {part.ours:.3f}  floor {part.floor:.3f} {part.unit}  ratio {part.ratio:.2f}", end=""
        )
        print(f"  goal {part.goal}  {mark}")
        for key, value in part.notes.items():
            print(f"    {key}: {value}")


def _all(rounds: int) -> int:
    """Each in a process of its own: one that breaks or hangs costs only itself."""
    print(f"{'benchmark':<16} {'ours':>10} {'floor':>10} {'ratio':>7}  {'unit':<12} {'goal':<44} ok")
    broken = 0
    for name in NAMES:
        command = [sys.executable, "-m", "benchmarks", name, "--json", "--rounds", str(rounds)]
        code, out, talk = _run(command)
        if code != 0:
            broken += 1
            last = talk.strip().splitlines()[-1] if talk.strip() else f"exit code {code}"
            print(f"{name:<16} did not finish: {last}", flush=True)
            continue
        body = json.loads(out.strip().splitlines()[-1])
        for part in body.get("parts") or [body]:
            print(
                f"{part['name']:<16} {part['ours']:>10.3f} {part['floor']:>10.3f} {part['ratio']:>7.2f}  "
                f"{part['unit']:<12} {part['goal']:<44} {'yes' if part['ok'] else 'NO'}",
                flush=True,
            )
    return 1 if broken else 0


def _run(command: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr), after at most ``LIMIT_S``; one that is ended by that takes its stack with it."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            out, err = process.communicate(timeout=END_S)
            err += f"\nended after {LIMIT_S} s"
    return process.returncode, out, err


if __name__ == "__main__":
    sys.exit(main())
