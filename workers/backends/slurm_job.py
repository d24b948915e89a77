"""What a Slurm job of ours runs on its node, around one engine. A copy lies in each attempt's folder; never imported.

``python3 -I -S job.py NONCE -- ARGV...`` in the attempt's folder, the key to ``private`` on standard input; on further
nodes of one attempt ``job.py --follow NONCE -- ARGV...``, both on standard input. Standard library of Python 3.6, for
compute nodes have what they have.

The job is what makes an attempt happen once, not the submission: it starts nothing when the folder is gone or of
another launch, when another job has the attempt, when a stop was asked for or when Slurm said that the job is over. How
an earlier run ended does not hinder a later one: only Slurm knows whether there is one. Records that others read are
replaced as a whole, and belong to one run (``restarts``):

``owner.json``  the job that has the attempt: the first one that got here
``run.json``    this run (Slurm may run a job again): node, address, port, pid, whose the listening socket is
``term.json``   Slurm asked for the end (not we), and what it said why
``exit.json``   how the engine ended, and how many of its processes are left; ``own`` unless Slurm asked for it
``alive``       its time of change, by the file system's clock, is when a run was last seen alive
``log-OFFSET``  output from that byte on; the last two are kept
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import Any

CHUNK_BYTES = 65536
#: An end as by SIGTERM may be Slurm's wish as long as this; then it was the engine's own.
SIGNALLING_S = 1.0
#: How often files are looked at that ask for the end, on a file system that many share. A signal hurries it; without
#: one, for the controller may be down, it still is heard.
LOOK_S = 2.0
#: How often ``alive`` is touched.
ALIVE_S = 5.0
#: How often it is looked whose the listening socket is: at first, after a while, and once it listens.
PORT_LOOK_S, PORT_SLOW_S, PORT_RELOOK_S = 0.1, 1.0, 5.0
#: How often it is looked whether what the engine left behind has ended.
LEFT_LOOK_S = 0.1
#: How long Slurm is asked why it ends the job.
WHY_S = 3.0
#: What of Slurm's environment is the engine's: the devices that it may use.
DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK", "GPU_DEVICE_ORDINAL")
#: Names the folder of the job's supervisor (``slurm_share.py``) where the job has several attempts.
SHARED = "HOSTLER_SHARED"
PORT_LATER, HOST_LATER = "@HOSTLER_PORT@", "@HOSTLER_HOST@"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    os.umask(0o077)
    words = sys.argv[1:]
    follows = words[0] == "--follow"
    nonce, argv = words[1 if follows else 0], words[words.index("--") + 1 :]
    key = sys.stdin.buffer.readline().strip()
    address = json.loads(sys.stdin.buffer.readline().decode() or "null") if follows else None
    plan = read("launch.json")
    if not plan or plan.get("nonce") != nonce:
        sys.exit("this attempt was launched anew by another job, or was removed; nothing is started")
    private = unseal(key, follows)
    if follows:
        follow(plan, private, argv, address)
    job, restarts = own_run("attempt")
    ended = read("exit.json")
    if ended and ended["own"] and ended["restarts"] == restarts:
        sys.exit("this run of the attempt has ended; nothing is started")
    Run(plan, private, argv, job, restarts, key).carry_out()


def own_run(what: str) -> tuple:
    """The job's id and its run, when this folder is theirs to begin; ``what`` the folder is of, for who is refused."""
    job = os.environ["SLURM_JOB_ID"]
    if write_once("owner.json", {"job_id": job})["job_id"] != job:
        sys.exit("another job has this %s; nothing is started" % what)
    if os.path.exists("over.json"):
        sys.exit("this %s has ended; nothing is started" % what)
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if restarts_of("run.json") > restarts:
        sys.exit("a later run has this %s; nothing is started" % what)
    return job, restarts


def follow(plan: dict, private: dict, argv: list, address: Any) -> None:
    """One of the further nodes: become the program, beside a leader who alone is asked over HTTP."""
    environ = environment(plan, private, address["host"], address["port"])
    environ["HOSTLER_NODE_RANK"] = str(int(os.environ["SLURM_PROCID"]) + 1)
    argv = [put(item, address["host"], address["port"], plan) for item in argv]
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execvpe(argv[0], argv, environ)  # noqa: S606 - running it is what this file is for


class Run:
    """One run of the attempt by one job."""

    def __init__(self, plan: dict, private: dict, argv: list, job: str, restarts: int, key: bytes) -> None:
        self.plan, self.private, self.restarts, self.key = plan, private, restarts, key
        self.node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self.host = own_address(plan.get("network"))
        self.port, self.claim = claim_port(plan, self.host)
        self.argv = [put(item, self.host, self.port, plan) for item in argv]
        self.known = {"job_id": job, "restarts": self.restarts, "node": self.node, "host": self.host, "port": self.port}
        self.log = Log(plan["log_bytes"])
        self.engine = 0
        self.followers: Any = None
        self.lost_follower: Any = None
        self.ended: Any = None
        self.owns: Any = None
        self.asked = self.forwarded = self.killed = False
        self.oom_before = oom_kills()
        self.alive = Alive()

    def carry_out(self) -> None:
        wake = listen_to_signals(self.heard)
        self.alive.tell()
        # a signal that came before now found its file here, or kills us and nothing was started
        if read("stop.json"):
            self.finish({"exit_code": None, "message": "was stopped before it started"})
        # of a run before this one
        remove("exit.json")
        remove("term.json")
        adopt_orphans()
        for name, text in self.private["files"].items():
            replace(name, put(text, self.host, self.port, self.plan).encode("utf-8", "surrogateescape"))
        source = self.start()
        self.tell(None)
        if int(os.environ.get("SLURM_JOB_NUM_NODES") or 1) > 1:
            self.start_followers()
        self.watch(source, wake)

    def heard(self, number: int, _: object) -> None:
        if number == signal.SIGTERM:
            self.asked = True

    def start(self) -> int:
        """Start the engine; the end of the pipe from which its output is read."""
        source, output = os.pipe()
        error_in, error_out = os.pipe()
        environ = environment(self.plan, self.private, self.host, self.port)
        self.engine = os.fork()
        if self.engine == 0:
            become(self.argv, environ, output, error_out)
        os.close(output)
        os.close(error_out)
        os.set_blocking(source, False)
        failed = os.read(error_in, 16)
        os.close(error_in)
        self.started_at = time.time()
        if failed:
            os.waitpid(self.engine, 0)
            name = self.argv[0]
            message = "cannot run %r: %s" % (name, os.strerror(int(failed)))
            if int(failed) == errno.ENOENT:
                message = "there is no program %r that can be run on %s" % (name, self.node)
            self.finish({"exit_code": None, "errno": int(failed), "message": message})
        return source

    def start_followers(self) -> None:
        """The same command on the other nodes; srun gives each the key and the leader's address."""
        count = int(os.environ["SLURM_JOB_NUM_NODES"]) - 1
        words = ["srun", "--nodes=%d" % count, "--ntasks=%d" % count, "--ntasks-per-node=1", "--exclude=" + self.node]
        words += ["--export=NONE", "--kill-on-bad-exit=1", "--overlap", "--chdir=" + os.getcwd()]
        words += [sys.executable, "-I", "-S", "job.py", "--follow", self.plan["nonce"], "--", *sys.argv[3:]]
        told = self.key + b"\n" + json.dumps({"host": self.host, "port": self.port}).encode() + b"\n"
        with self.log.pipe() as output:
            self.followers = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT)
        self.followers.stdin.write(told)
        self.followers.stdin.close()

    def tell(self, owns: Any) -> None:
        """Where this run is. On a full disk it is tried again at the next look."""
        self.give_way()
        with room_or_not():
            write("run.json", dict(self.known, pid=self.engine, started_at=self.started_at, owns_port=owns))
            self.owns = owns

    def watch(self, source: int, wake: int) -> None:
        """Copy output and look around until the engine and all that it left have ended."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        waiting = {source}
        for file in [source, *self.log.pipes]:
            poll.register(file, select.POLLIN)
            waiting.add(file)
        begun = time.monotonic()
        looked = port_looked = 0.0
        while True:
            pause_s = self.port_pause_s(time.monotonic() - begun) if self.ended is None else LEFT_LOOK_S
            for ready, _ in poll.poll(min(pause_s, LOOK_S) * 1000):
                if ready == wake:
                    drain(wake)
                elif not self.log.copy(ready):
                    poll.unregister(ready)
                    waiting.discard(ready)
            now = time.monotonic()
            if self.asked or now - looked >= LOOK_S:
                looked = now
                self.heed()
                self.alive.tell()
            self.reap(waiting)
            if self.ended is not None:
                self.end_when_empty()
            elif now - port_looked >= pause_s:
                port_looked = now
                owns = owns_port(self.host, self.port)
                if owns is not self.owns:
                    self.tell(owns)

    def port_pause_s(self, running_s: float) -> float:
        if self.owns is not None:
            return PORT_RELOOK_S
        return min(PORT_SLOW_S, max(PORT_LOOK_S, running_s / 100))

    def heed(self) -> None:
        """Somebody may want the end: we by a file (and a signal that hurries), Slurm by a signal alone."""
        asked, self.asked = self.asked, False
        self.give_way()
        if self.ended is None and restarts_of("run.json") < self.restarts:
            self.tell(self.owns)  # an earlier run's last word fell over ours
        if os.path.exists("kill.json") or os.path.exists("over.json"):
            self.killed = True
            kill_all()
        elif os.path.exists("stop.json"):
            if not self.forwarded:
                self.forwarded = True
                self.ask_engine()
        elif asked:
            # the engine first: Slurm does not wait for what the controller answers
            self.ask_engine()
            if not self.slurm_asked():
                with room_or_not():
                    write("term.json", {"at": time.time(), "restarts": self.restarts})
                    write("term.json", dict(why_slurm_ends_it(self.known["job_id"]), restarts=self.restarts))

    def give_way(self) -> None:
        """Slurm may have taken this node for lost and run the job on another one: that run has the attempt now."""
        if restarts_of("run.json") > self.restarts:
            kill_all()
            os._exit(1)

    def slurm_asked(self) -> bool:
        """Whether Slurm asked for the end of this run."""
        return (read("term.json") or {}).get("restarts") == self.restarts

    def ask_engine(self) -> None:
        """SIGTERM to the engine's group; when the engine has ended, to what it left."""
        if self.followers is not None and self.followers.poll() is None:
            self.followers.send_signal(signal.SIGTERM)
        if self.ended is None:
            for number in (signal.SIGTERM, signal.SIGCONT):
                signal_group(self.engine, number)
        else:
            for pid in descendants():
                send(pid, signal.SIGTERM)

    def reap(self, waiting: set) -> None:
        """Let zombies go; the engine's only after its last words are in the log."""
        while True:
            try:
                result = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if result is None:
                return
            if self.followers is not None and result.si_pid == self.followers.pid:
                code = self.followers.wait()
                if self.ended is None:
                    self.lost_follower = code
                    kill_all()
                continue
            if result.si_pid == self.engine:
                for file in list(waiting):
                    self.log.drain(file)
                self.ended = self.how(result)
                self.wait_for_slurms_word()
                left = len([pid for pid in descendants() if pid != self.engine])
                self.record_end(self.ended, left)
            os.waitpid(result.si_pid, 0)

    def wait_for_slurms_word(self) -> None:
        """Slurm signals the processes of a job one after the other: the engine may have heard of its end before us."""
        if self.ended["exit_code"] not in (0, 128 + signal.SIGTERM) and self.ended["signal"] != signal.SIGTERM:
            return
        until = time.monotonic() + SIGNALLING_S
        while not (self.asked or self.slurm_asked() or os.path.exists("stop.json")):
            if time.monotonic() > until:
                return
            time.sleep(0.02)
        self.heed()

    def how(self, result: Any) -> dict:
        code = result.si_status if result.si_code == os.CLD_EXITED else None
        killer = None if code is not None else result.si_status
        oom = killer == signal.SIGKILL and not self.killed and oom_kills() > self.oom_before
        ended = {"exit_code": code, "signal": killer, "oom": oom, "pid": self.engine, "ended_at": time.time()}
        if self.lost_follower is not None:
            ended["message"] = "its part on another node ended (code %s)" % self.lost_follower
        return ended

    def end_when_empty(self) -> None:
        left = descendants()
        if self.killed:
            for pid in left:
                send(pid, signal.SIGKILL)
        if not left:
            self.finish(self.ended)

    def record_end(self, ended: dict, left: int) -> None:
        self.give_way()
        own = not self.slurm_asked()
        try:
            write("exit.json", dict(dict(self.known, ended_at=time.time(), left=left, own=own), **ended))
        except OSError as error:  # a full disk: then Slurm's word of its end is what there is
            with contextlib.suppress(OSError):  # for its words too
                sys.stderr.write("its end could not be written: %s\n" % error)

    def finish(self, ended: dict) -> None:
        self.record_end(ended, 0)
        if os.path.exists("stop.json"):
            remove("private")  # else a later run needs it
        code = ended.get("exit_code")
        sys.stdout.flush()
        os._exit(code if code is not None else 128 + (ended.get("signal") or 0) if ended.get("signal") else 127)


def become(argv: list, environ: dict, output: int, failed: int) -> None:
    """In the child: turn into the engine, in a session of its own."""
    try:
        os.setsid()
        # somebody kills the job's part: its engine must not go on where nobody sees it
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                continue
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvpe(argv[0], argv, environ)  # noqa: S606 - running it is what this file is for
    except OSError as error:
        os.write(failed, str(error.errno).encode())
    os._exit(127)


def environment(plan: dict, private: dict, host: str, port: int) -> dict:
    """Everything the engine finds: nothing of it is the submitter's or the node's, but the devices Slurm gave it."""
    path = plan["path"]
    environ = {"PATH": path, "HOME": os.getcwd(), "LANG": "C.UTF-8"}
    environ.update((name, os.environ[name]) for name in plan.get("passes", ()) if name in os.environ)
    environ.update((name, put(value, host, port, plan)) for name, value in private["env"].items())
    environ["PATH"] = environ["PATH"].replace("{path}", path)
    environ["CUDA_VISIBLE_DEVICES"] = ""
    if plan["gpus"]:
        environ.update((name, os.environ[name]) for name in DEVICES if name in os.environ)
    environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    environ["HOSTLER_MARK"] = plan["name"]
    if int(os.environ.get("SLURM_JOB_NUM_NODES") or 1) > 1:
        environ["HOSTLER_NODE_RANK"] = "0"
        environ["HOSTLER_NODES"] = os.environ["SLURM_JOB_NUM_NODES"]
        environ["HOSTLER_LEADER"] = host
    return environ


def put(value: str, host: str, port: int, plan: dict) -> str:
    value = value.replace("{folder}", os.getcwd())
    value = value.replace('"%s"' % PORT_LATER, str(port)).replace(PORT_LATER, str(port))
    return value.replace(HOST_LATER, host)


def unseal(key: bytes, follows: bool) -> dict:
    """``env`` and ``files``. The key came with the script, which only Slurm has: neither half alone tells anything."""
    try:
        with open("private", "rb") as file:
            sealed = file.read()
    except FileNotFoundError:
        return {"env": {}, "files": {}}
    pad = hashlib.shake_256(key).digest(len(sealed))
    plain = bytes(one ^ other for one, other in zip(sealed, pad))
    return json.loads(plain.decode("ascii"))


class Log:
    """Output in files that begin at the byte their name says; the last two are kept, each of half the bound."""

    def __init__(self, bound_bytes: int) -> None:
        self.half = max(bound_bytes // 2, 1)
        self.pipes: list = []
        # the engine may have files there that are called alike
        starts = sorted(name for name in os.listdir(".") if re.match(r"log-[0-9]{20}\Z", name))
        self.kept = starts
        self.at = int(starts[-1][4:]) + os.path.getsize(starts[-1]) if starts else 0
        self.file = -1
        self.room = 0

    def pipe(self) -> Any:
        """One more way in: its end for who writes."""
        source, output = os.pipe()
        os.set_blocking(source, False)
        self.pipes.append(source)
        return os.fdopen(output, "wb")

    def copy(self, source: int) -> bool:
        """Move one chunk; False when every writer is gone."""
        try:
            data = os.read(source, CHUNK_BYTES)
        except BlockingIOError:
            return True
        self.write(data)
        return bool(data)

    def drain(self, source: int) -> None:
        while True:
            try:
                data = os.read(source, CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            self.write(data)

    def write(self, data: bytes) -> None:
        while data:
            try:
                if self.room <= 0:
                    self.turn()
                part = data[: self.room]
                count = os.write(self.file, part)
            except OSError:
                return  # a full disk, or a quota of files, loses output, never the engine
            self.at += count
            self.room -= count
            data = data[count:]

    def turn(self) -> None:
        name = "log-%020d" % self.at
        for old in self.kept[:-1]:
            remove(old)
        self.kept = self.kept[-1:]
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if self.file >= 0:
            os.close(self.file)
        self.file, self.room = opened, self.half
        self.kept.append(name)


# -- address and port


def own_address(network: Any) -> str:
    """The address of this node under which others reach it: in ``network`` (CIDR), else as the cluster names it."""
    if network:
        base, _, bits = network.partition("/")
        bits = int(bits or 32)
        mask = (0xFFFFFFFF << (32 - bits)) & 0xFFFFFFFF
        wanted = struct.unpack("!I", socket.inet_aton(base))[0] & mask
        for near in (wanted + 1, wanted + 2, wanted):
            found = source_of(socket.inet_ntoa(struct.pack("!I", near & 0xFFFFFFFF)))
            if found and struct.unpack("!I", socket.inet_aton(found))[0] & mask == wanted:
                return found
        sys.exit("this node has no address in the network %s" % network)
    name = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    found = resolve(name)
    if found and not found.startswith("127."):
        return found
    for other in (os.environ.get("SLURM_SUBMIT_HOST"), (os.environ.get("SLURM_WORKING_CLUSTER") or "::").split(":")[1]):
        found = source_of(resolve(other) if other else None)
        if found and not found.startswith("127."):
            return found
    return found or resolve(name) or "127.0.0.1"


def resolve(name: str) -> Any:
    try:
        return socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    except (OSError, UnicodeError):
        return None


def source_of(address: Any) -> Any:
    """The address from which this node would speak to that one. Nothing is sent."""
    if not address:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def claim_port(plan: dict, host: str) -> tuple:
    """A port that nobody listens on and no other job of Hostler on this node takes, and what holds the claim.

    The claim is an abstract Unix socket: it is of the same network namespace as the port, needs no folder that jobs
    share, and goes with its process.
    """
    if plan.get("port"):
        return plan["port"], None
    first, last = plan["ports"]
    count = last - first + 1
    # not by the job's id: a controller that lost its last seconds gives ids again, and would the old one's port with it
    begin = int(plan["nonce"][:8], 16) % count
    for place in range(count):
        port = first + (begin + place) % count
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            claim.bind("\0hostler-port-%d" % port)
        except OSError:
            claim.close()
            continue
        if is_free(host, port):
            return port, claim
        claim.close()
    sys.exit("no port of %d-%d is free on this node" % (first, last))


def is_free(host: str, port: int) -> bool:
    if listeners(host, port):
        return False
    for address in ("0.0.0.0", host):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def owns_port(host: str, port: int) -> Any:
    """True or False when somebody listens there: whether all that a connection may reach are the engine's."""
    wanted = listeners(host, port)
    if not wanted:
        return None
    missing = {"socket:[%s]" % inode for inode in wanted}
    for pid in descendants():
        folder = "/proc/%d/fd" % pid
        try:
            for number in os.listdir(folder):
                missing.discard(os.readlink("%s/%s" % (folder, number)))
        except OSError:
            continue
    return not missing


def listeners(host: str, port: int) -> set:
    """Inodes of the listening sockets that a connection to ``host:port`` may reach; its own address before "any"."""
    packed = socket.inet_aton(host)
    found: dict = {}
    for table in ("tcp", "tcp6"):
        try:
            with open("/proc/net/" + table) as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] != "0A":
                break  # the kernel lists every listening socket first
            written, _, at = words[1].partition(":")
            if int(at, 16) == port:
                parts = [bytes.fromhex(written[place : place + 8]) for place in range(0, len(written), 8)]
                raw = b"".join(part[::-1] if sys.byteorder == "little" else part for part in parts)
                found.setdefault(raw, set()).add(words[9])
    for address in (packed, bytes(10) + b"\xff\xff" + packed, bytes(4), bytes(16)):
        if address in found:
            return found[address]
    return set()


# -- processes


def listen_to_signals(heard: Any) -> int:
    """The end of a pipe that is readable after each signal; ``heard`` is its handler."""
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, heard)
    return wake


def adopt_orphans() -> None:
    """Whatever the engine leaves behind becomes our child: so it is seen, and Slurm finds it too."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants(root: Any = None) -> list:
    """Living processes below that one; without one, below this one."""
    children: dict = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, "rb") as file:
                    words = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            if words[0] not in (b"Z", b"X"):
                children.setdefault(int(words[1]), []).append(int(name))
            else:
                # a zombie's threads and children are found through it all the same
                children.setdefault(int(words[1]), []).append(-int(name))
    found, ahead = [], [os.getpid() if root is None else root]
    while ahead:
        for pid in children.get(ahead.pop(), ()):
            ahead.append(abs(pid))
            if pid > 0:
                found.append(pid)
    return found


def kill_all() -> None:
    for _ in range(3):
        left = descendants()
        for pid in left:
            send(pid, signal.SIGKILL)
        if not left:
            return


def signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except OSError:
        send(group, number)


def send(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def oom_kills() -> int:
    """How often the kernel ended somebody of this job for memory; of this node where a job has no count of its own."""
    for path, word in [*cgroup_counters(), ("/proc/vmstat", "oom_kill")]:
        try:
            with open(path) as file:
                for line in file:
                    words = line.split()
                    if words and words[0] == word:
                        return int(words[1])
        except OSError:
            continue
    return 0


def cgroup_counters() -> Any:
    try:
        with open("/proc/self/cgroup") as file:
            lines = file.read().splitlines()
    except OSError:
        return
    for line in lines:
        number, names, path = line.split(":", 2)
        if number == "0":
            yield "/sys/fs/cgroup%s/memory.events" % path, "oom_kill"
        elif "memory" in names.split(","):
            yield "/sys/fs/cgroup/memory%s/memory.oom_control" % path, "oom_kill"


def why_slurm_ends_it(job: str) -> dict:
    """The state that Slurm gave the job; it knows it before it sends the signal."""
    told = {"at": time.time()}
    if SHARED in os.environ:
        return dict(told, **told_by_shared_job())
    try:
        done = subprocess.run(
            ["squeue", "-h", "-j", job, "-o", "%T|%r"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, timeout=WHY_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return told
    state, _, reason = done.stdout.decode("utf-8", "replace").strip().partition("|")
    return dict(told, state=state, reason=reason)


def told_by_shared_job() -> dict:
    """The same, of a job with several attempts: its supervisor asks Slurm once for all of them."""
    until = time.monotonic() + WHY_S
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    while True:
        told = read(os.path.join(os.environ[SHARED], "term.json")) or {}
        if (told.get("restarts") == restarts and "state" in told) or time.monotonic() > until:
            return {name: told[name] for name in ("state", "reason") if name in told}
        time.sleep(0.05)


# -- records


class Alive:
    """A controller that forgot the job proves nothing: who asks finds in ``alive`` that it lives."""

    def __init__(self) -> None:
        self.told: Any = None

    def tell(self) -> None:
        now = time.monotonic()
        if self.told is not None and now - self.told < ALIVE_S:
            return
        self.told = now
        with contextlib.suppress(OSError):  # a full disk ends no engine
            os.close(os.open("alive", os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime("alive")


def read(record: str) -> Any:
    try:
        with open(record, encoding="utf-8") as file:
            value = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@contextlib.contextmanager
def room_or_not() -> Any:
    """A full disk ends no engine. A folder that is gone does: then nobody would know of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise


def restarts_of(record: str) -> int:
    """The run that it is of; below all where there is none."""
    return (read(record) or {}).get("restarts", -1)


def write(record: str, value: dict) -> None:
    replace(record, json.dumps(value).encode())


def replace(name: str, data: bytes) -> None:
    draft = os.path.join(os.path.dirname(name), ".%s.%d" % (os.path.basename(name), os.getpid()))
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, name)


def write_once(record: str, value: dict) -> dict:
    """The record as the first writer left it, who may be we."""
    draft = ".%s.%d" % (record, os.getpid())
    with open(draft, "w") as file:
        json.dump(value, file)
    try:
        os.link(draft, record)
    except FileExistsError:
        pass
    finally:
        os.unlink(draft)
    return read(record) or value


def remove(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)


def drain(file: int) -> None:
    try:
        while os.read(file, 4096):
            pass
    except BlockingIOError:
        pass


if __name__ == "__main__":
    main()
