"""The program that backends are made to run in tests: ``python -I -S specimen.py VERB...``. Standard library only.

Each start appends its pid to ``$STARTS``, so that a test can count how many there were.
"""

import os
import signal
import sys
import time


def main(verb: str, *rest: str) -> None:
    if "STARTS" in os.environ:
        with open(os.environ["STARTS"], "a") as starts:
            starts.write(f"{os.getpid()}\n")
    say("started", *rest)
    VERBS[verb](*rest)


def say(*words: str) -> None:
    os.write(1, " ".join(words).encode("utf-8", "surrogateescape") + b"\n")


def idle() -> None:
    while True:
        signal.pause()


def end(code: str) -> None:
    say("last words")
    sys.exit(int(code))


def stubborn() -> None:
    """Ignore SIGTERM, and say when that is so."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say("ready")
    idle()


def polite() -> None:
    """End with code 7 when asked."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    say("ready")
    idle()


def mute() -> None:
    """Close one's output and go on."""
    say("ready")
    os.closerange(1, 3)
    idle()


def leave_child() -> None:
    """End at once and leave a child in the process group."""
    if os.fork() == 0:
        idle()
    os._exit(4)


def leave_daemon() -> None:
    """End at once and leave a daemon: forked twice, own session, no descriptor kept."""
    _daemon(close=True)
    os._exit(4)


def leave_nameless() -> None:
    """End at once and leave a daemon whose environment says nothing, which kept its descriptors."""
    _daemon(close=False, environ={})
    os._exit(4)


def with_daemon() -> None:
    """Go on beside a daemon of one's own."""
    _daemon(close=True)
    say("ready")
    idle()


def _daemon(*, close: bool, environ: dict[str, str] | None = None) -> None:
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if close:
                os.closerange(0, told)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if environ is None:
                os.write(told, b"x")
                os.close(told)
                idle()
            # an exec is what empties the environment that /proc shows
            os.set_inheritable(told, True)
            os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "tell", str(told)], environ)  # noqa: S606
        os._exit(0)
    os.wait()
    os.read(ready, 1)


def tell(number: str) -> None:
    os.write(int(number), b"x")
    os.close(int(number))
    idle()


def chatter(size: str) -> None:
    """Write so many bytes in numbered lines, then end well."""
    written = number = 0
    while written < int(size):
        line = f"line {number:08d} " + "x" * 80 + "\n"
        written += os.write(1, line.encode())
        number += 1
    os.write(1, b"the end\n")


def drip() -> None:
    """Write a numbered line each 10 ms, to stdout and stderr in turn."""
    for number in range(100_000):
        os.write(1 + number % 2, f"drip {number} {'x' * 1000}\n".encode())
        time.sleep(0.01)


def devour() -> None:
    """Take memory until somebody minds."""
    while True:
        KEPT.append(bytearray(b"x" * 10_000_000))


def listen(port: str, host: str = "127.0.0.1") -> None:
    _listen(host, int(port))
    say("listening")
    idle()


def listen_in_child(port: str) -> None:
    """The listening socket belongs to a child only, as with servers that have workers."""
    if os.fork() == 0:
        listen(port)
    idle()


def _listen(host: str, port: int) -> object:
    import socket

    server = socket.create_server((host, port))
    KEPT.append(server)
    return server


def show(*words: str) -> None:
    """Write the arguments, the environment and the state of signals, one JSON object."""
    import json

    with open("/proc/self/status") as status:
        masks = {line.split(":")[0]: int(line.split()[1], 16) for line in status if line[:6] in ("SigIgn", "SigBlk")}
    with open("shown.json.new", "w") as file:
        seen = {
            "words": words,
            "environ": dict(os.environ),
            "session": os.getsid(0),
            "pid": os.getpid(),
            "umask": os.umask(0o077),
            "masks": masks,
        }
        json.dump(seen, file)
    os.rename("shown.json.new", "shown.json")
    idle()


KEPT: list[object] = []
VERBS = {
    verb.__name__.replace("_", "-"): verb
    for verb in (
        idle, end, stubborn, polite, leave_child, leave_daemon, leave_nameless, with_daemon, chatter, mute, drip,
        devour, listen, listen_in_child, show, tell,
    )
}  # fmt: skip

if __name__ == "__main__":
    main(*sys.argv[1:])
