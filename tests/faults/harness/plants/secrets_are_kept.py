"""What an attempt on a cluster ran with stays in its folder after its end.

Taken out, of the programs that run on the cluster's hosts: what removes it when the job is over, and when the attempt
is seen gone. It is of no use without its key, which goes with the job; but it is nobody's any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _without(*lines: bytes) -> Callable[[bytes], bytes]:
    def change(source: bytes) -> bytes:
        for line in lines:
            assert line in source
            source = source.replace(line, b"pass")
        return source

    return change


PATCHES: dict[str, Callable[[Any], Any]] = {
    "workers.backends.slurm_asking:_PROGRAM": _without(b'os.unlink(os.path.join(folder, "private"))'),
    "workers.backends.slurm_asking:JOB_SOURCE": _without(b'remove("private")'),
}
