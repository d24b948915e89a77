"""What a Slurm job with several attempts runs on its node: one ``slurm_job.py`` for each seat that is taken.

``python3 -I -S share.pyz NONCE`` in the job's folder, the job's key on standard input. Standard library of Python 3.6.

A seat is a file ``seats/NUMBER``, made by one ``link``: who made it has that share of the job's GPUs. It names the
attempt and its launch, and holds the key to its secrets for this job alone. A seat is free again when nothing of its
attempt is left, and only then is the attempt told to be over, so that who replaces it finds the seat. The job ends by
removing the folder ``seats``, which succeeds only while no seat is taken.

``owner.json``, ``run.json``, ``term.json``, ``alive`` are the job's as ``slurm_job.py`` has them for an attempt.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

from workers.backends.slurm_job import (
    DEVICES,
    PR_SET_PDEATHSIG,
    SHARED,
    Alive,
    adopt_orphans,
    descendants,
    drain,
    kill_all,
    listen_to_signals,
    own_run,
    prctl,
    read,
    remove,
    replace,
    restarts_of,
    send,
    why_slurm_ends_it,
    write,
)
from workers.backends.slurm_seal import opened

#: How often it is looked for seats that were taken.
LOOK_S = 1.0
#: What a killed member left is killed for so long at a time; then the others are looked at.
LEFT_S = 2.0
#: A member's part of ours that was to kill its engine is killed itself after so long.
KILLING_S = 8.0
#: A seat of what is not there is free after so long: a file system may show things late.
STRANGER_S = 30.0
#: A member that ended because, as it heard, Slurm ends the job has ended for good when Slurm does not in so long.
ENDING_S = 10.0
SEATS = "seats"


def main() -> None:
    os.umask(0o077)
    nonce = sys.argv[1]
    key = sys.stdin.buffer.readline().strip()
    plan = read("launch.json")
    if not plan or plan.get("nonce") != nonce:
        sys.exit("this job was submitted anew, or its folder was removed; nothing is started")
    Share(plan, key, *own_run("shared job")).carry_out()


class Member:
    """An attempt on its seat, in this run."""

    def __init__(self, name: str, nonce: str, folder: str) -> None:
        self.name, self.nonce, self.folder = name, nonce, folder
        #: None once it ended in this run; ``code`` tells how
        self.process: Any = None
        self.code: Any = None
        #: why it could not be started
        self.lacks = ""
        self.kill_seen: Any = None
        self.ended_at = 0.0

    def has(self, record: str) -> bool:
        return os.path.exists(os.path.join(self.folder, record))

    def read(self, record: str) -> dict:
        return read(os.path.join(self.folder, record)) or {}


class Share:
    """One run of the job."""

    def __init__(self, plan: dict, key: bytes, job: str, restarts: int) -> None:
        self.plan, self.key, self.restarts = plan, key, restarts
        self.job = job
        self.known = {"job_id": job, "restarts": restarts, "node": os.environ.get("SLURMD_NODENAME", "")}
        self.root = os.path.dirname(os.path.dirname(os.getcwd()))
        self.members: dict = {}
        self.strangers: dict = {}
        self.asked = self.hurried = self.ending = False
        self.pid = os.getpid()
        self.alive = Alive()
        self.empty_since: Any = None

    def carry_out(self) -> None:
        wake = listen_to_signals(self.heard)
        adopt_orphans()
        remove("term.json")
        write("run.json", self.known)
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        while True:
            try:
                self.look()
            except OSError as error:  # a file system that stumbles ends nobody; what was left is done at the next look
                sys.stderr.write("%s\n" % error)
            poll.poll(LOOK_S * 1000)
            drain(wake)

    def heard(self, number: int, _: object) -> None:
        if number == signal.SIGTERM:
            self.asked = True
        if number == signal.SIGUSR1:
            self.hurried = True

    def look(self) -> None:
        self.give_way()
        now = time.monotonic()
        self.alive.tell()
        if self.asked:
            self.asked = False
            self.end_all()
        self.reap(now)
        for seat, member in list(self.members.items()):
            if member.process is None:
                self.settle(seat, member, now)
        taken = self.taken()
        if not self.ending:
            self.start_taken(taken)
        self.heed_kills(now)
        if self.hurried:
            self.hurried = False
            self.hurry()
        self.close_when_empty(taken, now)

    def give_way(self) -> None:
        """Slurm took this node for lost and runs the job on another one, or somebody was told that the job is over."""
        if restarts_of("run.json") > self.restarts or os.path.exists("over.json"):
            kill_all()
            os._exit(1)

    # -- seats

    def taken(self) -> dict:
        """Which attempt has which seat; nothing when the job was closed."""
        found: dict = {}
        try:
            names = os.listdir(SEATS)
        except OSError:
            return found
        for name in names:
            entry = read(os.path.join(SEATS, name))
            if name.isdigit() and entry and {"name", "nonce", "key"} <= set(entry):
                found[int(name)] = entry
        return found

    def start_taken(self, taken: dict) -> None:
        for seat, entry in sorted(taken.items()):
            member = self.members.get(seat)
            if member is not None and (member.process is not None or member.nonce == entry["nonce"]):
                continue
            member = Member(entry["name"], entry["nonce"], os.path.join(self.root, entry["name"]))
            launch = member.read("launch.json")
            if launch.get("nonce") != member.nonce or "argv" not in launch or member.has("over.json"):
                self.free_stranger(seat, entry)
                continue
            try:
                key = opened(self.key, entry["key"], member.name + ":" + member.nonce)
            except (KeyError, TypeError, ValueError):
                self.free_stranger(seat, entry)
                continue
            self.strangers.pop(seat, None)
            self.members[seat] = member
            self.start(seat, member, launch, key)

    def free_stranger(self, seat: int, entry: dict) -> None:
        now = time.monotonic()
        nonce, since = self.strangers.setdefault(seat, (entry["nonce"], now))
        if nonce != entry["nonce"]:
            self.strangers[seat] = (entry["nonce"], now)
        elif now - since >= STRANGER_S:
            del self.strangers[seat]
            self.free(seat, nonce)

    def free(self, seat: int, nonce: str) -> None:
        path = os.path.join(SEATS, str(seat))
        if (read(path) or {}).get("nonce") == nonce:
            remove(path)

    def close_when_empty(self, taken: dict, now: float) -> None:
        running = [member for member in self.members.values() if member.process is not None]
        if running:
            self.empty_since = None
            return
        if self.ending:
            kill_all()
            os._exit(128 + signal.SIGTERM)
        if taken:
            self.empty_since = None
            return
        if self.empty_since is None:
            self.empty_since = now
        if now - self.empty_since < self.plan["stay_s"] and os.path.isdir(SEATS):
            return
        try:
            os.rmdir(SEATS)
        except FileNotFoundError:
            pass  # closed by who stopped the last one before it began
        except OSError:
            return  # somebody came in this moment
        kill_all()
        os._exit(0)

    # -- members

    def start(self, seat: int, member: Member, launch: dict, key: bytes) -> None:
        environ = dict(os.environ)
        environ[SHARED] = os.getcwd()
        gpus = self.plan["gpus"]
        for name in DEVICES:
            if gpus and name in environ:
                given = environ[name].split(",")
                own = given[seat * gpus : (seat + 1) * gpus]
                if len(own) < gpus:
                    message = "the job got %d GPUs, too few for %d for each of its %d seats"
                    self.end_without_start(member, message % (len(given), gpus, self.plan["seats"]))
                    return
                environ[name] = ",".join(own)
        words = [sys.executable, "-I", "-S", "job.py", member.nonce, "--", *launch["argv"]]
        try:
            output = os.open(os.path.join(member.folder, "slurm.out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                member.process = subprocess.Popen(
                    words, stdin=subprocess.PIPE, stdout=output, stderr=output, cwd=member.folder, env=environ,
                    preexec_fn=self.die_with_us,
                )  # fmt: skip
            finally:
                os.close(output)
        except OSError as error:
            self.end_without_start(member, "its seat could not start it: %s" % error)
            return
        with contextlib.suppress(BrokenPipeError):
            member.process.stdin.write(key + b"\n")
            member.process.stdin.close()

    def die_with_us(self) -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self.pid:
            os._exit(1)  # too late to be told

    def end_without_start(self, member: Member, message: str) -> None:
        """It has ended, which the next look tells."""
        member.code, member.lacks = 0, message

    def reap(self, now: float) -> None:
        """Let zombies go: members, and what a killed member left to us.

        Nobody else may: ``Popen.send_signal`` waits for a process that has ended, which then would never be seen here.
        """
        ours = {member.process.pid: seat for seat, member in self.members.items() if member.process is not None}
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if result is None:
                return
            if result.si_pid not in ours:
                os.waitpid(result.si_pid, 0)
                continue
            member = self.members[ours[result.si_pid]]
            member.code, member.process, member.ended_at = member.process.wait(), None, now

    def settle(self, seat: int, member: Member, now: float) -> None:
        try:
            self.after(seat, member, now)
        except OSError as error:  # as above; of the others' ends this hinders none
            sys.stderr.write("the end of %s cannot be told yet: %s\n" % (member.name, error))

    def after(self, seat: int, member: Member, now: float) -> None:
        """Its part of ours ended. Whether the attempt did, Slurm may still have to say."""
        code = member.code
        # also where it ended by itself: it may have met a full disk with its engine's processes beside it
        if not self.kill_left():
            return
        stopped = member.has("stop.json")
        if self.ending and not stopped:
            return
        if not self.is_ours(member):
            del self.members[seat]
            self.free(seat, member.nonce)
            return
        ended = member.read("exit.json")
        if ended.get("restarts") == self.restarts:
            if not ended["own"] and not stopped and now - member.ended_at < ENDING_S:
                return
            if ended["left"]:
                write_in(member.folder, "exit.json", dict(ended, left=0))
        elif code < 0:
            self.write_end(member, None, -code, "its part of ours on the node was killed by signal %d" % -code)
        elif member.lacks:
            self.write_end(member, None, None, member.lacks)
        else:
            began = member.read("run.json").get("restarts") == self.restarts
            how = "its part of ours on the node failed" if began else "did not begin"
            self.write_end(member, code, None, "%s: %s" % (how, last_words(member.folder)))
        self.let_go(seat, member)

    def is_ours(self, member: Member) -> bool:
        owner = member.read("owner.json").get("job_id", self.job)
        launch = member.read("launch.json").get("nonce")
        return owner == self.job and launch == member.nonce and not member.has("over.json")

    def write_end(self, member: Member, code: Any, number: Any, message: str) -> None:
        ended = dict(self.known, exit_code=code, signal=number, oom=False, pid=None, ended_at=time.time(), left=0)
        with contextlib.suppress(FileNotFoundError):  # somebody took its folder away
            write_in(member.folder, "exit.json", dict(ended, own=True, message=message))

    def let_go(self, seat: int, member: Member) -> None:
        """The attempt has ended for good. The seat first: who sees the end may want it at once.

        Raises OSError where that cannot be told yet; then it has its seat until it was: nobody else would tell it.
        """
        told = os.path.join(member.folder, ".over")
        with contextlib.suppress(FileNotFoundError):  # somebody took its folder away
            replace(told, json.dumps({"at": time.time(), "by": "job"}).encode())
        self.free(seat, member.nonce)
        with contextlib.suppress(FileNotFoundError):
            os.rename(told, os.path.join(member.folder, "over.json"))
            remove(os.path.join(member.folder, "private"))
        del self.members[seat]

    def kill_left(self) -> bool:
        """Whether all is gone that is below no member that lives: a member that was killed left it."""
        until = time.monotonic() + LEFT_S
        before: set = set()
        while True:
            left = self.left()
            if not left or time.monotonic() > until:
                return not left
            # seen twice: a look at what comes and goes may miss who stands between it and its member
            for pid in left & before:
                send(pid, signal.SIGKILL)
            before = left
            time.sleep(0.02)

    def left(self) -> set:
        """What is below us and below no member that lives."""
        # all of it first: what a member starts from now on is none of it
        left = set(descendants())
        for member in self.members.values():
            if member.process is not None:
                left -= {member.process.pid, *descendants(member.process.pid)}
        return left

    def heed_kills(self, now: float) -> None:
        """What was to be killed and is not gone: its part of ours hangs."""
        for member in self.members.values():
            if member.process is None or (member.kill_seen is None and not member.has("kill.json")):
                continue
            if member.kill_seen is None:
                member.kill_seen = now
            elif now - member.kill_seen >= KILLING_S:
                send(member.process.pid, signal.SIGKILL)

    def hurry(self) -> None:
        """Somebody wrote a wish into a member's folder, which it reads by itself, but not at once."""
        for member in self.members.values():
            if member.process is not None and (member.has("stop.json") or member.has("kill.json")):
                send(member.process.pid, signal.SIGTERM)

    def end_all(self) -> None:
        """Slurm ends this run. It signals members itself, mostly; a notice ahead of the end reaches us alone."""
        if not self.ending:
            self.ending = True
            why = dict({"state": ""}, **why_slurm_ends_it(self.job))
            with contextlib.suppress(OSError):
                write("term.json", dict(why, restarts=self.restarts))
        for member in self.members.values():
            if member.process is not None and member.read("term.json").get("restarts") != self.restarts:
                send(member.process.pid, signal.SIGTERM)


def last_words(folder: str) -> str:
    with contextlib.suppress(OSError), open(os.path.join(folder, "slurm.out"), "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 1000))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        if lines:
            return lines[-1][-300:]
    return "it said nothing"


def write_in(folder: str, record: str, value: dict) -> None:
    replace(os.path.join(folder, record), json.dumps(value).encode())
