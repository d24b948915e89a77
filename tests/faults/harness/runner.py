"""Seeds, one after the other on one stack: carry out, wait for rest, let the checker look, clean up, say so."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from tests.faults.harness import checker
from tests.faults.harness.driver import Driver
from tests.faults.harness.facts import Finding, RunFacts
from tests.faults.harness.foreign import Foreign
from tests.faults.harness.journal import Journal
from tests.faults.harness.places import is_of_places
from tests.faults.harness.places.beside import is_beside
from tests.faults.harness.places.parts import Parts, running_parts
from tests.faults.harness.resting import ask_at_rest, read_at_rest
from tests.faults.harness.script import ASKED, script, told
from tests.faults.harness.settling import CONVERGE_S, await_rest, end_all, until_tried_again
from tests.faults.harness.stack import FaultyStack, faulty_stack

#: To stop what a seed left, once it was judged.
CLEAN_S = 30.0
#: The checker looks again while it finds something and there is time: a death may be a second old.
LOOK_AGAIN_S = 1.0
#: The same, when a planted bug makes it find something.
PLANTED_S = 3.0


@dataclass
class Outcome:
    """One seed's."""

    seed: int
    findings: list[Finding]
    took_s: float
    settled_s: float
    faults: list[str] = field(default_factory=list)
    #: the stack is not fit for another seed
    broken: str = ""


class Runner:
    """Holds the stack that serves the seeds, and replaces it only when it is broken for good."""

    def __init__(self, folder: Path, plant: str = "", parts: Parts | None = None, *, with_host: bool = False) -> None:
        """``parts``: what its stacks find other places made of, for seeds that run there; ``with_host``: they have
        another host too."""
        self._with_host = with_host
        self._folder = folder
        self._plant = plant
        self._parts = parts
        self._stacks = 0
        self._held = ExitStack()
        self._driver: Driver | None = None
        #: what stacks left behind that ended
        self.left: list[str] = []

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(self, seed: int) -> Outcome:
        """One seed from begin to end. Never raises for what the stack does."""
        driver = self._driver or self._open()
        stack, journal = driver.stack, driver.journal
        began = time.monotonic()
        steps = script(seed)
        journal.seed = seed
        facts = self._begin(stack, seed)
        journal.write("seed_begin", after_event=facts.after_event, after_task=facts.after_task)
        foreign = Foreign(stack.url, stack.facts.api_key, journal)
        try:
            driver.carry_out(steps)
        except BaseException:
            foreign.close()
            for one in driver.follows():
                one.close()
            raise
        ended_at, ended = time.time(), time.monotonic()
        journal.write("faults_end")
        deadline = ended + CONVERGE_S
        left = await_rest(stack, journal, deadline)
        if left and (more_s := until_tried_again(stack)):
            # a second try that a busy machine missed is followed by one that is later than all else may be
            journal.write("tried_again", moving=left, more_s=round(more_s, 2))
            deadline = time.monotonic() + more_s
            left = await_rest(stack, journal, deadline)
        settled_s = time.monotonic() - ended
        journal.write("not_converged" if left else "converged", after_s=round(settled_s, 2), moving=left)
        follows = driver.follows()
        try:
            if not left:
                ask_at_rest(stack, journal, driver.send, foreign)
                read_at_rest(stack, journal, driver.send, follows)
        finally:
            foreign.close()
            for one in follows:
                one.close()
        run = RunFacts(facts.stack, seed, facts.begun_at, ended_at, facts.after_event, facts.after_task, not left)
        findings = [
            Finding("converges", f"still in motion {CONVERGE_S:g} s after the last fault: {one}") for one in left
        ]
        found = checker.check(run)
        # with a bug planted nothing is to be hoped for
        last = min(deadline, time.monotonic() + PLANTED_S) if self._plant else deadline
        while found and time.monotonic() < last:
            time.sleep(LOOK_AGAIN_S)
            found = checker.check(run)
        journal.write("seed_end")
        outcome = Outcome(
            seed, findings + found, 0.0, settled_s, [step.what for step in steps if step.what not in ASKED]
        )
        if outcome.findings:
            keep_evidence(stack, run)
        # what is asked from here on belongs to no seed
        journal.seed = 0
        outcome.broken = self._clean(driver)
        outcome.took_s = time.monotonic() - began
        if outcome.broken:
            self._close()
        return outcome

    def keep(self) -> Path:
        """Where the present stack's journal and logs lie."""
        return self._folder / f"stack-{self._stacks}"

    def has_seen_engines(self) -> bool:
        """Whether an engine was started, and counted, on the stack that served last."""
        told = [path.read_text() for path in (self.keep() / "starts").iterdir()]
        return any(kind in text for text in told for kind in (" process", " run-"))

    def _open(self) -> Driver:
        self._stacks += 1
        folder = self.keep()
        folder.mkdir()
        stack = self._held.enter_context(faulty_stack(folder, self._plant, self._parts, with_host=self._with_host))
        journal = Journal(folder)
        self._held.callback(journal.close)
        self._held.enter_context(checker.recording(stack.facts))
        trouble = stack.await_serving()
        if trouble:
            raise RuntimeError(f"the stack does not come up: {trouble}\n{stack.last_words()}")
        self._driver = Driver(stack, journal)
        return self._driver

    def _close(self) -> None:
        driver, self._driver = self._driver, None
        self._held.close()
        if driver is not None:
            self.left += driver.stack.left

    def _begin(self, stack: FaultyStack, seed: int) -> RunFacts:
        with stack.sql() as connection:
            row = connection.execute(
                "SELECT coalesce((SELECT max(id) FROM events), 0), coalesce((SELECT max(seq) FROM tasks), 0)"
            ).fetchone()
        assert row is not None
        return RunFacts(stack.facts, seed, time.time(), 0.0, row[0], row[1], converged=False)

    def _clean(self, driver: Driver) -> str:
        left = end_all(driver.stack, driver.send, time.monotonic() + CLEAN_S)
        return ", ".join(left) or driver.stack.await_serving(CLEAN_S)


def run_seeds(
    seeds: Sequence[int], *, plant: str = "", first: bool = False, limit_s: float, folder: Path | None = None
) -> int:
    """Run them all and say how it went; the last line is the verdict. 0 when nothing was found.

    ``limit_s`` bounds the whole: seeds that were not begun by then count as failures. ``first`` ends it with the first
    that finds something.
    """
    folder = folder or Path(tempfile.mkdtemp(prefix="hostler-faults-"))
    folder.chmod(0o711)
    deadline = time.monotonic() + limit_s
    began, failed, done = time.monotonic(), [], 0
    with ExitStack() as held:
        elsewhere = held.enter_context(running_parts(folder)) if any(map(is_of_places, seeds)) else None
        for pool, why in elsewhere.left_out().items() if elsewhere is not None else ():
            say(f"no pool {pool}: {why}")
        runner = held.enter_context(Runner(folder, plant, elsewhere, with_host=any(map(is_beside, seeds))))
        for seed in seeds:
            if time.monotonic() > deadline:
                break
            outcome = runner.run(seed)
            done += 1
            say(line(outcome))
            if outcome.findings:
                failed.append(seed)
                say_failure(outcome, runner.keep())
                if first:
                    break
        blind = done > 0 and not runner.has_seen_engines()
    took_s = time.monotonic() - began
    missing = len(seeds) - done
    verdict = "ok" if not failed and not missing and not blind and not runner.left else "FAILED"
    parts = [f"{done} seeds in {took_s:.0f} s"]
    parts += [f"failed: {','.join(map(str, failed))}"] if failed else []
    parts += [f"not begun: {missing}"] if missing else []
    parts += [f"left behind by `hostler down`: {'; '.join(runner.left)}"] if runner.left else []
    # the stack that served last started no engine: what holds then proves nothing
    parts += ["no engine was ever started: the harness is blind"] if blind else []
    parts += [f"planted: {plant}"] if plant else []
    parts += [f"journal and logs: {folder}"] if failed or runner.left else []
    say(f"faults: {verdict}: {'; '.join(parts)}")
    return 0 if verdict == "ok" else 1


def keep_evidence(stack: FaultyStack, run: RunFacts) -> None:
    """Logs and rows of a seed that failed, as ``seed-<n>/``: the next seed goes on, and the stack goes away."""
    folder = run.folder / f"seed-{run.seed}"
    shutil.copytree(stack.layout.logs, folder / "logs", dirs_exist_ok=True)
    if stack.beside is not None:
        shutil.copytree(stack.beside.layout.logs, folder / "logs-beside", dirs_exist_ok=True)
    try:
        with stack.sql() as connection:
            for name, query in _ROWS.items():
                rows = connection.execute(query, {"event": run.after_event, "task": run.after_task}).fetchall()
                (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row[0])}\n" for row in rows))
    except psycopg.Error as error:
        (folder / "rows-missing").write_text(str(error))


#: What happened, and how it ended.
_ROWS = {
    "events": "SELECT to_jsonb(e) FROM events e WHERE id > %(event)s ORDER BY xid, id",
    "tasks": "SELECT to_jsonb(t) FROM tasks t WHERE seq > %(task)s ORDER BY seq",
    "replicas": "SELECT to_jsonb(r) - 'environment' FROM replicas r WHERE id IN"
    " (SELECT replica_id FROM tasks WHERE seq > %(task)s)",
    "attempts": "SELECT to_jsonb(a) FROM attempts a WHERE replica_id IN"
    " (SELECT replica_id FROM tasks WHERE seq > %(task)s)",
}


def line(outcome: Outcome) -> str:
    verdict = "FAILED" if outcome.findings else "ok"
    took = f"{outcome.took_s:5.1f} s, at rest after {outcome.settled_s:4.1f} s"
    return f"seed {outcome.seed:>4} {verdict:<6} {took}: {', '.join(outcome.faults)}"


def say_failure(outcome: Outcome, folder: Path) -> None:
    say(f"  the script of seed {outcome.seed} (again: make faults SEEDS={outcome.seed}; journal in {folder}):")
    for one in told(script(outcome.seed)).splitlines():
        say(f"    {one}")
    for finding in outcome.findings:
        say(f"  found: {finding.rule}: {finding.text} {dict(finding.evidence) or ''}")
    if outcome.broken:
        say(f"  the stack was left with {outcome.broken}; the next seed gets a new one")


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
