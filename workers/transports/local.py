"""Commands given on this host."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from workers.transports.base import MOST_OUTPUT_BYTES, Completed, TransportError
from workers.transports.pump import Heard, OutOfTime, TooMuch, talk

#: What a program may know of this process's environment: who we are and where things are, and no setting or secret.
PASSED_ON = frozenset(
    {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
    | {"KRB5CCNAME", "KRB5_CONFIG", "SLURM_CONF"}
)


class LocalTransport:
    """This host."""

    name = "this host"

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float = 10) -> Completed:
        deadline = time.monotonic() + timeout_s
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=passed_on(), start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError:
            return Completed(127, b"", os.fsencode(f"{argv[0]}: not found"))
        except PermissionError:
            return Completed(126, b"", os.fsencode(f"{argv[0]}: cannot be executed"))
        except OSError as error:
            raise TransportError(f"cannot run {argv[0]} on {self.name}: {error.strerror}") from error
        heard = Heard()
        try:
            talk(process, stdin, deadline=deadline, most_bytes=MOST_OUTPUT_BYTES, heard=heard)
        except OutOfTime:
            raise TransportError(f"{argv[0]} on {self.name} took longer than {timeout_s:g} s") from None
        except TooMuch:
            raise TransportError(f"{argv[0]} on {self.name} said more than {MOST_OUTPUT_BYTES} bytes") from None
        finally:
            end_group(process)
        code = process.returncode
        return Completed(128 - code if code < 0 else code, bytes(heard.stdout), bytes(heard.stderr))


def passed_on() -> dict[str, str]:
    """The environment of a program that works for us."""
    return {"LANG": "C.UTF-8"} | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill it and its group if it still runs, and let its zombie go. What it left behind in peace stays."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
