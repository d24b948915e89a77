"""The small process between a worker and an engine. Run as ``python -I -S shim.py start`` or ``tend``; never imported.

It belongs to nobody: the worker that started it may die. It publishes the attempt's folder, starts the engine in a
session of its own, copies its output to size-bounded logs, and writes how it ended. Every step that another process
must see whole is one ``rename``.

Imports are kept to what starts in about 10 ms (``signal``, ``json`` and ``subprocess`` would double that), so records
are formatted by hand: they hold numbers only.

``start GO``: it is started ahead and waits for a byte on descriptor ``GO``; without one its launcher has ended. Then
descriptor 0 holds the plan (fields separated by NUL, see ``launching.py``; never on disk, for it holds secrets), and
what became of it is told on descriptor 2 as one word, see ``TOLD``.
``tend FOLDER LOG_BYTES PID START``: take over the output of a living engine whose shim was killed. The engine survives
that: its stdout is a FIFO that it holds open for reading too, so it gets no SIGPIPE and waits only when that is full.
"""

import _signal  # type: ignore[import-not-found]  # the part of ``signal`` without its enums, which cost 5 ms
import fcntl
import os
import select
import sys
import time

#: What ``start`` says: published, name is taken, came too late, program cannot be executed (an errno follows).
TOLD = (b"published ", b"taken ", b"late ", b"errno ")
CHUNK_BYTES = 65536
#: How often an idle shim looks at the OOM counter, so that a kill long ago is not taken for the end of this engine.
OOM_LOOK_MS = 30_000
#: Records are padded to this.
RECORD_BYTES = 160


def main() -> None:
    os.umask(0o077)
    if sys.argv[1] == "start":
        start(int(sys.argv[2]))
    else:
        tend(sys.argv[2], *map(int, sys.argv[3:]))


def start(go: int) -> None:
    if not os.read(go, 1):
        return
    os.close(go)
    os.lseek(0, 0, os.SEEK_SET)  # where the launcher ended writing
    plan = os.dup(0)
    detach()
    staging, folder, deadline, log_bytes, program, argc, *rest = read_all(plan).split(b"\0")
    argv, environ = rest[: int(argc)], dict(item.split(b"=", 1) for item in rest[int(argc) :])
    os.chdir(staging)
    # taken before the folder has its name, so whoever sees the folder sees the lock held while anything lives
    lock = take("lock")
    take("shim.lock")
    os.mkfifo("out", 0o600)
    source = os.open("out", os.O_RDONLY | os.O_NONBLOCK)
    record("shim.json", f'{{"pid": {os.getpid()}, "start": {start_time("self")}}}')
    # a launcher that was frozen for longer than its caller waits must not start what others have given up
    if is_late(deadline):
        tell(TOLD[2])
        os._exit(0)
    try:
        os.rename(staging, folder)  # the one moment at which the launch happens
    except OSError:
        tell(TOLD[1])
        os._exit(0)
    tell(TOLD[0])
    if is_late(deadline):
        record("exit.json", f'{{"late": true, "ended_at": {time.time()}}}')
        os._exit(0)
    reserve("exit.json")
    oom_before = oom_kills()
    engine = os.fork()
    if engine == 0:
        become(program, argv, environ, lock)
    os.close(lock)  # from here on the lock means: the engine or something it started lives
    silence(2)
    watch(source, os.pidfd_open(engine), Log(int(log_bytes)), engine, oom_before)


def tend(folder: str, log_bytes: int, engine: int, started: int) -> None:
    detach()
    silence(2)
    os.chdir(folder)
    take("shim.lock")
    pidfd = os.pidfd_open(engine)
    if start_time(str(engine)) != started:
        return
    source = os.open("out", os.O_RDONLY | os.O_NONBLOCK)
    record("shim.json", f'{{"pid": {os.getpid()}, "start": {start_time("self")}}}')
    watch(source, pidfd, Log(log_bytes), None, 0)


def detach() -> None:
    """Leave the worker: its wait, its signals (its session and descriptors were left by ``launching.py``)."""
    silence(0)
    silence(1)
    if os.fork():
        os._exit(0)
    for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
        _signal.signal(number, _signal.SIG_IGN)


def become(program: bytes, argv: list[bytes], environ: dict[bytes, bytes], lock: int) -> None:
    """In the child: turn into the engine. The record is written before, so a living engine is never unknown."""
    os.setsid()
    record("engine.json", f'{{"pid": {os.getpid()}, "start": {start_time("self")}, "started_at": {time.time()}}}')
    for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
        _signal.signal(number, _signal.SIG_DFL)  # ignored signals would stay ignored over the exec
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    told = os.dup(2)
    output = os.open("out", os.O_RDWR)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.set_inheritable(lock, True)
    try:
        os.execve(program, argv, environ)  # noqa: S606 - running it is what this file is for
    except OSError as error:
        record("exit.json", f'{{"errno": {error.errno}, "ended_at": {time.time()}}}')
        tell(TOLD[3] + str(error.errno).encode(), told)
    os._exit(127)


def watch(source: int, pidfd: int, log: "Log", child: int | None, oom_before: int) -> None:
    """Copy output until nobody can write any more and the engine has ended."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    waiting = {source, pidfd}
    while waiting:
        events = poll.poll(OOM_LOOK_MS)
        if not events and child:
            oom_before = oom_kills()
        for ready, _ in sorted(events, key=lambda event: event[0] != source):
            if ready == source and log.copy(source):
                continue
            done = {ready}
            if ready == pidfd:
                # first the last words, so that whoever reads the record finds them in the log
                if source in waiting and not log.drain(source):
                    done.add(source)  # poll would not tell: an engine that died early never opened its end
                end(child, oom_before)
            for file in done & waiting:
                poll.unregister(file)
            waiting -= done


def end(child: int | None, oom_before: int) -> None:
    """Write how the engine ended, and only then let its zombie go: one of the two can always be seen."""
    code = killer = "null"
    oom = False
    if child is not None:
        result = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        if result is not None and result.si_code == os.CLD_EXITED:
            code = str(result.si_status)
        elif result is not None:
            killer = str(result.si_status)
            oom = result.si_status == _signal.SIGKILL and oom_kills() > oom_before
    if not os.path.exists("exit.json"):
        fields = f'"exit_code": {code}, "signal": {killer}, "oom": {"true" if oom else "false"}'
        record("exit.json", f'{{{fields}, "ended_at": {time.time()}}}')
    if child is not None:
        os.waitpid(child, 0)


class Log:
    """``log`` and, when that is half of the bound, ``log.1``. A full disk loses output, never the engine."""

    def __init__(self, bound_bytes: int) -> None:
        self.half = max(bound_bytes // 2, 1)
        self.open()

    def open(self) -> None:
        self.file = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self.file).st_size

    def copy(self, source: int) -> int:
        """Move one chunk; its size, 0 when every writer is gone, -1 when there is nothing now."""
        try:
            data = os.read(source, CHUNK_BYTES)
        except BlockingIOError:
            return -1
        try:  # noqa: SIM105 - contextlib costs a third of the start
            self.write(data)
        except OSError:
            pass
        return len(data)

    def drain(self, source: int) -> bool:
        """Move what is there now (bounded: a descendant may go on writing); False when every writer is gone."""
        for _ in range(32):
            moved = self.copy(source)
            if moved <= 0:
                return moved < 0
        return True

    def write(self, data: bytes) -> None:
        while data:
            if self.size >= self.half:
                os.rename("log", "log.1")
                os.close(self.file)
                self.open()
            written = os.write(self.file, data[: self.half - self.size])
            self.size += written
            data = data[written:]


def oom_kills() -> int:
    """How often the kernel's OOM killer has struck in our cgroup, else on this host; 0 when nothing tells."""
    places = []
    for line in text("/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            places.append(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            places.append(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    for place in (*places, "/proc/vmstat"):
        for line in text(place).splitlines():
            if line.startswith("oom_kill "):
                return int(line[9:])
    return 0


def take(name: str) -> int:
    """Lock a file of the folder. Whoever holds it already keeps it, and this process ends with code 75."""
    file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os._exit(75)
    return file


def tell(word: bytes, target: int = 2) -> None:
    try:  # noqa: SIM105 - contextlib costs a third of the start
        os.write(target, word)
    except OSError:
        pass  # the launcher died; adopt() finds what it left


def record(name: str, value: str) -> None:
    reserve(name, value)
    os.rename(name + ".new", name)


def reserve(name: str, value: str = "") -> None:
    """Write a record without publishing it. With its room taken, a disk that fills up cannot stop it."""
    file = os.open(name + ".new", os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(file, value.ljust(RECORD_BYTES).encode())
    os.close(file)


def start_time(pid: str) -> int:
    """Clock ticks from the host's start to the process's: with the pid, its identity."""
    return int(text(f"/proc/{pid}/stat").rpartition(")")[2].split()[19])


def is_late(deadline_ns: bytes) -> bool:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) > int(deadline_ns)


def silence(target: int) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, target)
    os.close(null)


def text(path: str) -> str:
    try:
        return read_all(os.open(path, os.O_RDONLY)).decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def read_all(file: int) -> bytes:
    parts = []
    while part := os.read(file, CHUNK_BYTES):
        parts.append(part)
    os.close(file)
    return b"".join(parts)


if __name__ == "__main__":
    main()
