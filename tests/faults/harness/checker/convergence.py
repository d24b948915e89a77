"""After the faults stop everything comes to rest within 30 s."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.harness.checker.evidence import Evidence
from tests.faults.harness.facts import Finding

CONVERGES_S = 30.0


def check_convergence(found: Evidence) -> Iterator[Finding]:
    moving = [line.get("moving") for line in found.journal if line["op"] == "not_converged"]
    if not found.run.converged or moving:
        yield Finding("convergence", f"not at rest {CONVERGES_S:.0f} s after the last fault", {"moving": moving})
    # launches that a backend was away for wait for their next try, as they are said to
    may_s = CONVERGES_S + 1 + sum(line["more_s"] for line in found.journal if line["op"] == "tried_again")
    ended = [line["t"] for line in found.journal if line["op"] == "faults_end"]
    for line in found.journal:
        if line["op"] == "converged" and ended and line["t"] - ended[-1] > may_s:
            after_s = round(line["t"] - ended[-1], 1)
            yield Finding("convergence", "it came to rest too late", {"after_s": after_s})
