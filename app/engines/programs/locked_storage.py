"""``python -I -S locked_storage.py FOLDER WAIT_S PROGRAM ARG...``: become PROGRAM, with the folder for oneself alone.

The lock is held by an open file that the program inherits, so it ends with the last process that has it, however that
ends. One that is just ending is waited for. Exit codes: 4 when another process has the folder open, 127 when there is
no such program.
"""

# ruff: noqa: T201  (what it prints is the attempt's log)
import errno
import fcntl
import os
import sys
import time

LOCK = ".lock"


def main(folder: str, wait_s: float, argv: list[str]) -> None:
    """Returns only by ending the process."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        _give_up(2, f"cannot open {folder}: {error.strerror}")
    os.set_inheritable(lock, True)
    _lock(lock, folder, wait_s)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - the plan's own words, no shell between
    except OSError as error:
        _give_up(127, f"cannot run {argv[0]}: {error.strerror}")


def _lock(lock: int, folder: str, wait_s: float) -> None:
    until = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                _give_up(2, f"cannot lock {folder}: {error.strerror}")
            if time.monotonic() > until:
                _give_up(4, f"another process has {folder} open. Stop the replica that holds it.")
            if not told:
                print(f"storage: waits for {folder}, which another process has open", flush=True)
                told = True
            time.sleep(0.05)
        else:
            return


def _give_up(code: int, message: str) -> None:
    print(f"storage: {message}", file=sys.stderr, flush=True)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3:])
