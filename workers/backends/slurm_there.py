"""What is done on the host where Slurm's commands are: one program per request, sent along with it; never imported.

Standard input holds a line with two sizes, this source and a request in JSON; standard output gets one line of JSON.
Standard library of Python 3.6. Whatever changes something is one step that another such program cannot be in the middle
of: an attempt's folder appears, and goes, by one ``rename``.

``launch.json``  what the launch was, with a nonce that its job must know
``script``       what was submitted, without the key to ``private``
``private``      environment and files of the engine, sealed; the key is in the submitted script
``submit.lock``  held (flock) by whoever is submitting, and by sbatch itself
``job.json``     the job's id, once Slurm accepted it
``stop.json``    when it was first asked to end; ``kill.json`` when to be killed
``over.json``    since when the attempt is told to be gone, before anybody is told so: no later run starts anything
``slurm.out``    what Slurm itself and the shell had to say
The rest is the job's (``slurm_job.py``).
"""

import base64
import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import zlib
from typing import Any

#: Longer output of squeue is compressed on its way.
PACKED_FROM = 4096
STAGED, LEAVING = ".new-", ".gone-"
#: The job's output from that byte on.
SEGMENT = re.compile(r"log-[0-9]{20}\Z")
#: CLOCK_BOOTTIME, which Python names since 3.7.
BOOTTIME = 7
#: Wishes that a full disk, or a quota that was used up, must not hinder: it takes no new file, but one more name of one
#: that is there and changes no more.
ON_A_FULL_DISK = {"stop.json": "launch.json", "kill.json": "script"}
#: Records that a look returns; small, each.
LOOKED_AT = (
    "launch.json", "job.json", "run.json", "exit.json", "term.json", "stop.json", "kill.json", "owner.json",
    "over.json", "seat.json",
)  # fmt: skip
#: What stands in them, whichever it stands in; and numbers are smaller than these.
TEXT, WHOLE, NUMBER, ABSENT = str, int, float, type(None)
TYPES = {
    "nonce": (TEXT,), "job_id": (TEXT,), "job_name": (TEXT,), "share": (TEXT,), "boot_id": (TEXT,), "by": (TEXT,),
    "host": (TEXT,), "message": (TEXT,), "state": (TEXT,), "reason": (TEXT,), "restarts": (WHOLE,), "left": (WHOLE,),
    "seat": (WHOLE,), "of": (WHOLE,), "port": (WHOLE, ABSENT), "pid": (WHOLE, ABSENT), "exit_code": (WHOLE, ABSENT),
    "signal": (WHOLE, ABSENT), "at": (WHOLE, NUMBER), "now_s": (WHOLE, NUMBER), "started_at": (WHOLE, NUMBER),
    "ended_at": (WHOLE, NUMBER), "own": (bool,), "oom": (bool,), "owns_port": (bool, ABSENT),
}  # fmt: skip
MOST = {WHOLE: 2**31, NUMBER: 2.0**36}
#: What a job's part may take to end itself after it was told to kill; then Slurm is told.
KILLING_S = 8.0
#: sbatch did not say whether the job was accepted: a line of Slurm's own begins so, after the names of its functions.
#: What a request wrote stands further on in a line ("Invalid --begin specification: ..."), and decides nothing.
UNSURE = re.compile(
    r"^(?:sbatch: )?(?:(?:error|fatal|warning): )?(?:Batch job submission failed: |[a-z0-9_]+(?: \[[^\]]*\])?: )*"
    r"(?:Unable to contact slurm controller|Unable to establish control|Socket timed out on|"
    r"Zero Bytes were transmitted|Transport endpoint is not connected|"
    r"Connection (?:refused|reset|timed out|closed|aborted)|No route to host|Network is unreachable|"
    r"Operation timed out|Protocol authentication error|Authentication credential|"
    r"Invalid authentication credential|Munge (?:encode|decode) failed|If munged is up|Unexpected message received|"
    r"Message (?:send|receive) failure|Communication (?:connection|message|shutdown)|Slurm backup controller|"
    r"Slurm(?:ctld)? temporarily unable|Slurmctld (?:is )?not responding|Resource temporarily unavailable|"
    r"Could not establish a configuration source)",
    re.IGNORECASE | re.MULTILINE,
)

#: How the states begin in which a job is over.
OVER = ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_ME")


class Refused(Exception):
    """``kind`` is what the other side makes of it."""

    def __init__(self, kind: str, text: str) -> None:
        Exception.__init__(self, text)
        self.kind = kind


def serve(request: dict, kind: Any) -> None:
    """Carry out what is asked for, by a ``There`` of that kind."""
    os.umask(0o077)
    there = kind(request)
    try:
        answer = getattr(there, "do_" + request["verb"])(request)
    except Refused as refusal:
        answer = {"refused": refusal.kind, "message": str(refusal)}
    except OSError as error:
        where = " (%s)" % error.filename if error.filename else ""
        answer = {"refused": "broken", "message": "%s%s" % (error.strerror or error, where)}
    queue = answer.get("queue")
    if queue and len(queue["text"]) > PACKED_FROM:
        # columns are mostly blanks
        queue["packed"] = encode(zlib.compress(queue["text"].encode("utf-8", "surrogateescape"), 1))
        queue["text"] = ""
    print(json.dumps(dict(answer, clock=clock())))


def clock() -> dict:
    with open("/proc/sys/kernel/random/boot_id") as file:
        boot = file.read().strip()
    return {"boot_id": boot, "now_s": time.clock_gettime(BOOTTIME), "at": time.time()}


class There:
    """The host, as a request names its places."""

    def __init__(self, request: dict) -> None:
        self.root = os.path.expanduser(request["folder"])
        if not os.path.isabs(self.root):
            raise Refused("refused", "the option folder must begin with / or ~/, not %r" % request["folder"])
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        # what the submitter's own environment wishes for is no option of ours
        environ.update({name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}, TZ="UTC")
        if request.get("conf"):
            environ["SLURM_CONF"] = request["conf"]
        if request.get("commands"):
            environ["PATH"] = request["commands"] + ":" + environ.get("PATH", "/usr/bin:/bin")
        self.environ = environ
        self.end = time.monotonic() + request["timeout_s"]

    # -- verbs

    def do_greet(self, request: dict) -> dict:
        code, out, err = self.run(["squeue", "--version"], b"", self.left_s())
        if code == 127:
            raise Refused("refused", err)
        return {"root": self.root, "version": out.strip()}

    def do_launch(self, request: dict) -> dict:
        now = clock()
        if request["boot_id"] != now["boot_id"]:
            return {"refused": "clock", "message": "another host, or the same one started anew"}
        folder = self.path(request["name"])
        if os.path.isdir(folder):
            self.refuse_taken(folder)
        staging = self.stage(request["name"], request["records"], request["files"])
        try:
            lock = os.open(os.path.join(staging, "submit.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            lock_file(lock)
            os.set_inheritable(lock, True)  # sbatch holds it too: it may outlive this program
            if time.clock_gettime(BOOTTIME) > request["deadline_s"]:
                raise Refused("late", "the launch came too late; nothing was started")
            try:
                os.rename(staging, folder)
            except OSError:
                self.refuse_taken(folder)
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return self.submit(folder, request, lock)

    def submit(self, folder: str, request: dict, lock: int) -> dict:
        self.refuse_stopped(folder)
        try:
            job = self.sbatch(base64.b64decode(request["script"]), request["deadline_s"], (lock,))
        except Refused as refusal:
            if refusal.kind == "refused":
                self.remove(folder)
            raise
        self.write(folder, "job.json", {"job_id": job})
        return {"job_id": job}

    def refuse_stopped(self, folder: str) -> None:
        if os.path.exists(os.path.join(folder, "stop.json")):
            self.remove(folder)
            raise Refused("sealed", "was stopped before it was launched; nothing was started")

    def sbatch(self, script: bytes, deadline_s: float, locks: tuple) -> str:
        """The job's id. ``Refused``: by Slurm (``refused``), or nobody knows (``unavailable``)."""
        left_s = deadline_s - time.clock_gettime(BOOTTIME)
        code, out, err = self.run(["sbatch", "--parsable"], script, max(0.05, left_s), keep=locks)
        job = submitted_job(out)
        if code == 0 and job:
            return job
        said = (err.strip() or out.strip())[-2000:]
        if code is None or (code != 127 and UNSURE.search(said)):
            # it may have been accepted: whoever looks next finds it by its name, or withdraws the folder
            raise Refused("unavailable", said or "sbatch did not answer in time")
        raise Refused("refused", said)

    def do_adopt(self, request: dict) -> dict:
        """Whether it was launched. A launch that never reached Slurm is withdrawn, so that it can be made again."""
        folder = self.path(request["name"])
        records = self.records(folder)
        if is_launched(records) or self.is_held(folder):
            return {"attempt": self.attempt(request["name"], records)}
        queue = self.queue([request["name"]], request["format"])
        if not queue["ok"]:
            raise Refused("unavailable", queue["message"])
        nonce = records.get("launch.json", {}).get("nonce", "")
        records = self.records(folder)
        if records is None or "job.json" in records or marked_jobs(queue, request["name"], nonce):
            return {"attempt": self.attempt(request["name"], records), "queue": queue}
        # no submitter lives and Slurm does not have it. A job that Slurm accepts yet finds its folder gone
        self.remove(folder)
        return {"attempt": self.attempt(request["name"], None)}

    def do_look(self, request: dict) -> dict:
        """Any number of attempts: one question to Slurm, and the small files of those that may have begun."""
        names = request["names"]
        # asked before Slurm is: a submission that ends in between is then in what Slurm says
        held = {name for name in names if self.is_unsubmitted(self.path(name))}
        # an end that was there before shows what Slurm makes of it: a requeue is known there before anything is ended
        ended = {name: self.ended_run(self.path(name)) for name in names}
        queue = self.queue(self.job_names(names), request["format"])
        marked = jobs_by_mark(queue)
        attempts, own = {}, {}
        for name in names:
            # after it: a job that ended in between has written how
            records = self.records(self.path(name))
            own[name] = marked.get(self.mark_of(name, records or {}), {})
            self.note_over(self.path(name), records, own[name])
            attempts[name] = dict(self.attempt(name, records), held=name in held, ended_before=ended[name])
        if queue["ok"]:
            self.look_for_life(attempts, own)
        if queue["ok"] and request.get("accounting"):
            queue["ended"] = self.accounting(attempts, queue)
        return {"attempts": attempts, "queue": queue}

    def mark_of(self, name: str, records: dict) -> str:
        """By which its job is known. An id is no proof: a controller that lost its last seconds gives it again."""
        return mark(name, records.get("launch.json", {}).get("nonce", ""))

    def job_names(self, names: list) -> list:
        """Of the jobs that these attempts run in."""
        return names

    def do_end(self, request: dict) -> dict:
        """Attempts that are gone, whatever proved it: nothing of them runs again, and no secret of theirs is kept."""
        for name in request["names"]:
            folder = self.path(name)
            if os.path.isdir(folder):
                self.end_for_good(folder)
        return {}

    def do_stop(self, request: dict) -> dict:
        name, folder = request["name"], self.path(request["name"])
        records = self.records(folder)
        if records is None:
            queue = self.queue([name], request["format"])
            if not queue["ok"]:
                raise Refused("unavailable", queue["message"])
            found = [job for job, over in marked_jobs(queue, name) if not over]
            if found:
                self.run(["scancel", *found], b"", self.left_s())
            elif not self.seal(name):
                records = self.records(folder)
        if records is not None and "sealed" not in records:
            self.end_job(folder, records, request)
        return self.do_look(dict(request, names=[name], verb="look"))

    def end_job(self, folder: str, records: Any, request: dict) -> None:
        if os.path.exists(os.path.join(folder, "over.json")):
            return
        kills, killing_s = self.wish_end(folder, request)
        job = (records.get("job.json") or records.get("owner.json") or {}).get("job_id")
        if not job:
            found = self.queue([request["name"]], request["format"])
            job = next((job for job, over in marked_jobs(found, request["name"]) if not over), None)
        if not job:
            return  # still being submitted: the job, if there will be one, finds stop.json
        name = request["name"]
        self.ask_slurm(job, name, "--state=PENDING")
        if "owner.json" not in records:
            # should it begin all the same, it finds stop.json and starts nothing
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, "private"))
        if kills and killing_s >= KILLING_S:
            self.ask_slurm(job, name)
        elif kills or "stop.json" not in records:
            self.ask_slurm(job, name, "--batch", "--signal=TERM", "--state=RUNNING")
        if kills:
            self.ask_slurm(job, name, "--state=SUSPENDED")

    def wish_end(self, folder: str, request: dict) -> tuple:
        """Write down that it is to end; whether it is to be killed by now, and since how long (s)."""
        now = clock()
        asked = self.write_once(folder, "stop.json", now)
        passed_s = now["now_s"] - asked["now_s"] if asked["boot_id"] == now["boot_id"] else time.time() - asked["at"]
        if not request["force"] and passed_s < request["grace_s"]:
            return False, 0.0
        killed = self.write_once(folder, "kill.json", now)
        return True, now["now_s"] - killed["now_s"] if killed["boot_id"] == now["boot_id"] else KILLING_S

    def ask_slurm(self, job: str, name: str, *how: str) -> None:
        """The job reads the files as well, so that a controller that does not answer delays the end, no more."""
        # the name too: an id may be another job's by now, from a controller that lost its last seconds
        self.run(["scancel", "--quiet", "--name=" + name, *how, job], b"", self.left_s())

    def do_list(self, request: dict) -> dict:
        queue = self.queue(None, request["format"])
        names = [name for name in self.names() if name.startswith(request["prefix"])]
        return {"names": names, "queue": queue, "root": self.root}

    def do_close(self, request: dict) -> dict:
        folder = self.path(request["name"])
        if os.path.isdir(folder):
            self.remove(folder)
        return {}

    def do_tidy(self, request: dict) -> dict:
        found = []
        for name in os.listdir(self.root) if os.path.isdir(self.root) else []:
            path = os.path.join(self.root, name)
            try:
                old = os.stat(path).st_mtime < time.time() - request["older_s"]
            except OSError:
                continue
            if old and (name.startswith((STAGED, LEAVING)) or "sealed" in (self.records(path) or ())):
                found.append(name)
                if not request["dry_run"]:
                    self.remove(path)
        return {"found": sorted(found)}

    def do_end_idle(self, _request: dict) -> dict:
        return {"ended": []}  # nobody ever shared a job here

    def do_recall(self, request: dict) -> dict:
        return {"record": (self.records(self.path(request["name"])) or {}).get("launch.json", {}).get("record")}

    def do_log(self, request: dict) -> dict:
        """Output from an offset on (None: the oldest kept), or the last lines.

        Of an engine that has not begun, what the shell and Slurm had to say instead: ``said`` is where that goes on.
        """
        folder = self.path(request["name"])
        if not self.segments(folder):
            said = self.slurm_said(folder, request.get("said") or 0, request["limit"])
            if request.get("tail") is not None:
                said = last_lines(said, request["tail"], request["limit"])
            return {"data": encode(said), "said": (request.get("said") or 0) + len(said), "gap": False}
        if request.get("tail") is not None:
            return {"data": encode(self.tail(folder, request["tail"], request["limit"]))}
        for _ in range(3):  # a segment may be turned away between listing and reading
            try:
                return self.log_part(folder, request)
            except FileNotFoundError:
                continue
        return {"data": "", "place": request["place"] or 0, "gap": False}

    def do_tail_place(self, request: dict) -> dict:
        """The offset of the last ``lines`` lines; None before the engine begins."""
        place, missing = None, request["lines"]
        folder = self.path(request["name"])
        for start, name in reversed(self.segments(folder)):
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read()
            except FileNotFoundError:  # turned away meanwhile, and all before it
                break
            if not missing:
                return {"place": start + len(data)}
            if place is None and data and not data.endswith(b"\n"):
                missing -= 1  # the line that is being written
            cut, place = len(data), start
            while missing >= 0 and cut >= 0:
                cut = data.rfind(b"\n", 0, cut)
                missing -= cut >= 0
            if missing < 0:
                return {"place": start + cut + 1}
        return {"place": place}

    def do_describe(self, request: dict) -> dict:
        version = self.run(["sinfo", "--version"], b"", self.left_s())
        code, out, err = self.run(["sinfo", "-h", "-N", "-o", "%N|%c|%m|%G|%T|%R"], b"", self.left_s())
        if code == 127:
            raise Refused("refused", err)
        if code != 0:
            raise Refused("unavailable", err.strip() or "sinfo did not answer in time")
        for program in ("sbatch", "squeue", "scancel"):
            if not shutil.which(program, path=self.environ.get("PATH")):
                raise Refused("refused", "there is no program %s here" % program)
        return {"version": version[1].strip(), "nodes": out, "folder": self.unusable()}

    def unusable(self) -> str:
        """Why no attempts can be kept in the folder; empty when they can. Makes nothing."""
        place = self.root
        while not os.path.lexists(place):
            place = os.path.dirname(place)
        if not os.path.isdir(place):
            return "folder %s cannot be made: %s is none" % (self.root, place)
        if not os.access(place, os.W_OK | os.X_OK):
            return "folder %s cannot be %s" % (self.root, "written to" if place == self.root else "made")
        return ""

    # -- folders

    def path(self, name: str) -> str:
        if "/" in name or name.startswith(".") or not name:
            raise Refused("refused", "%r is not the name of an attempt" % name)
        return os.path.join(self.root, name)

    def names(self) -> list:
        if not os.path.isdir(self.root):
            return []
        return sorted(name for name in os.listdir(self.root) if not name.startswith("."))

    def stage(self, name: str, records: Any, files: dict) -> str:
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        staging = tempfile.mkdtemp(prefix=STAGED + name + "-", dir=self.root)
        try:
            for record, value in records.items():
                self.write(staging, record, value)
            for file, data in files.items():
                with open(os.path.join(staging, file), "wb") as out:
                    out.write(base64.b64decode(data))
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return staging

    def seal(self, name: str) -> bool:
        """Take the name, so that a launcher still on its way to it starts nothing. False: that launcher was faster."""
        staging = self.stage(name, {"sealed": {"at": time.time()}}, {})
        try:
            os.rename(staging, self.path(name))
        except OSError:
            shutil.rmtree(staging, ignore_errors=True)
            return False
        return True

    def refuse_taken(self, folder: str) -> None:
        if os.path.exists(os.path.join(folder, "sealed")):
            raise Refused("sealed", "was stopped before it was launched; nothing was started")
        if os.path.isdir(folder):
            raise Refused("taken", "was launched before; adopt it")

    def remove(self, folder: str) -> None:
        """Take its name away in one step, then its content."""
        leaving = tempfile.mkdtemp(prefix=LEAVING, dir=self.root)
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, os.path.join(leaving, "it"))
        shutil.rmtree(leaving, ignore_errors=True)

    def records(self, folder: str) -> Any:
        """The small files that are there; None without a folder. Listed first: that makes NFS look again."""
        try:
            present = set(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None
        found: dict = {"sealed": {}} if "sealed" in present else {}
        for record in LOOKED_AT:
            if record in present:
                try:
                    with open(os.path.join(folder, record), encoding="utf-8") as file:
                        value = json.load(file)
                except (FileNotFoundError, ValueError):
                    continue
                if isinstance(value, dict) and is_sound(value):
                    found[record] = value
        return found

    def attempt(self, name: str, records: Any) -> dict:
        """What is told of an attempt; None where there is none."""
        if records is None:
            return {"there": False}
        told = {record.partition(".")[0]: value for record, value in records.items()}
        told["secrets"] = os.path.exists(os.path.join(self.path(name), "private"))
        told.get("launch", {}).pop("record", None)
        ended = records.get("exit.json") or {}
        if "sealed" not in records and ended.get("own") is not True:
            told["said"] = self.slurm_said(self.path(name), None, 1000).decode("utf-8", "replace")
        return dict(told, there=True)

    def slurm_said(self, folder: str, place: Any, limit: int) -> bytes:
        """What Slurm and the shell wrote, from ``place`` on (None: its end): also the last words of a job it ended."""
        try:
            with open(os.path.join(folder, "slurm.out"), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - limit) if place is None else place)
                return file.read(limit)
        except FileNotFoundError:
            return b""

    def is_unsubmitted(self, folder: str) -> bool:
        """Whether it is being submitted at this moment."""
        submitted = (os.path.exists(os.path.join(folder, name)) for name in ("job.json", "owner.json", "sealed"))
        return not any(submitted) and self.is_held(folder)

    def ended_run(self, folder: str) -> Any:
        """The restart count of the run whose end is written; None without one."""
        try:
            with open(os.path.join(folder, "exit.json"), encoding="utf-8") as file:
                value = json.load(file)
        except (OSError, ValueError):
            return None
        return value.get("restarts") if isinstance(value, dict) and is_sound(value) else None

    def note_over(self, folder: str, records: Any, own: dict) -> None:
        """Who is told that a job is over gives the attempt up: somebody may requeue that job all the same.

        ``own``: of its own jobs by id whether each is over.
        """
        records = records or {}
        job = (records.get("owner.json") or records.get("job.json") or {}).get("job_id")
        if own.get(job):
            with contextlib.suppress(OSError):  # a full disk hides no end
                self.end_for_good(folder)

    def end_for_good(self, folder: str) -> None:
        """No later run starts anything; then none needs the secrets."""
        if not os.path.exists(os.path.join(folder, "over.json")):
            self.write_once(folder, "over.json", clock())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "private"))

    def look_for_life(self, attempts: dict, own: dict) -> None:
        """``alive_s``: how long ago the program of a job that Slurm does not know (any more) told that it lives."""
        now = None
        for name, told in attempts.items():
            job = (told.get("owner") or told.get("job") or {}).get("job_id")
            if not told.get("there") or job is None or own[name]:
                continue
            try:
                # opened: NFS then asks for the times anew
                with open(os.path.join(self.path(name), "alive"), "rb") as file:
                    alive = os.fstat(file.fileno()).st_mtime
                now = self.time_of_files() if now is None else now
            except OSError:
                continue
            told["alive_s"] = now - alive

    def time_of_files(self) -> float:
        """What the file system's own clock says: nodes and this host may have others."""
        file, path = tempfile.mkstemp(prefix=STAGED, dir=self.root)
        try:
            os.utime(path)
            return os.fstat(file).st_mtime
        finally:
            os.close(file)
            os.unlink(path)

    def is_held(self, folder: str) -> bool:
        """Whether whoever submits it, or its sbatch, still lives."""
        try:
            file = os.open(os.path.join(folder, "submit.lock"), os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # a file system without locks; the job's own checks do not need them
        finally:
            os.close(file)
        return False

    def write(self, folder: str, record: str, value: dict) -> None:
        os.rename(self.draft(folder, record, value), os.path.join(folder, record))

    def draft(self, folder: str, record: str, value: dict) -> str:
        """A file of its own with that in it; none where the disk is full."""
        file, path = tempfile.mkstemp(prefix="." + record, dir=folder)
        try:
            with os.fdopen(file, "w") as out:
                json.dump(value, out)
        except OSError:
            os.unlink(path)
            raise
        return path

    def write_once(self, folder: str, record: str, now: dict) -> dict:
        """When it was first written, which may be now."""
        place = os.path.join(folder, record)
        try:
            draft = self.draft(folder, record, dict(now, at=time.time()))
            try:
                link_once(draft, place)
            finally:
                os.unlink(draft)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT) or record not in ON_A_FULL_DISK:
                raise
            link_once(os.path.join(folder, ON_A_FULL_DISK[record]), place)
        with open(place, encoding="utf-8") as written:
            with contextlib.suppress(ValueError):
                told = json.load(written)
                if "now_s" in told:
                    return told
            # the name is what counts; it was given when the file last changed
            return dict(now, boot_id="", at=os.fstat(written.fileno()).st_ctime)

    # -- output

    def segments(self, folder: str) -> list:
        if not os.path.isdir(folder):
            return []
        # its engine may have files there that are called alike
        return sorted((int(name[4:]), name) for name in os.listdir(folder) if SEGMENT.match(name))

    def log_part(self, folder: str, request: dict) -> dict:
        segments = self.segments(folder)
        place = request["place"]
        end = segments[-1][0] + os.path.getsize(os.path.join(folder, segments[-1][1]))
        gap = place is not None and not segments[0][0] <= place <= end
        at = segments[0][0] if place is None or gap else place
        data = b""
        for start, name in segments:
            with open(os.path.join(folder, name), "rb") as file:
                if start <= at + len(data):
                    file.seek(at + len(data) - start)
                    data += file.read(request["limit"] - len(data))
        return {"data": encode(data), "place": at + len(data), "gap": gap}

    def tail(self, folder: str, lines: int, limit: int) -> bytes:
        data = b""
        for _, name in reversed(self.segments(folder)):
            try:
                with open(os.path.join(folder, name), "rb") as file:
                    data = file.read() + data
            except FileNotFoundError:
                continue
            if data.count(b"\n") > lines or len(data) >= limit:
                break
        return last_lines(data, lines, limit)

    # -- Slurm

    def queue(self, names: Any, form: dict) -> dict:
        """What squeue says of our jobs, as it says it, and whether it answered. ``names``: only those; None: all."""
        words = ["squeue", "--states=all", "--user=%d" % os.getuid()]
        if names is not None and not names:
            return {"ok": True, "form": "none", "text": "", "message": ""}
        if names is not None and len(names) <= 50:
            words.append("--name=" + ",".join(names))
        if form["json"]:
            code, out, err = self.run([*words, "--json"], b"", self.left_s())
            if code == 0:
                try:
                    return self.shrunk(json.loads(out), form)
                except ValueError:
                    err = "squeue --json does not speak JSON"
        else:
            code, out, err = self.run([*words, "-h", "-O", form["fields"]], b"", self.left_s())
            if code == 0 and (known_ids(out) or not out.strip()):
                return {"ok": True, "form": "fixed", "text": out, "message": ""}
            if code == 0:
                # words in the place of a list are not an empty one: nobody was said to be gone
                err = "squeue says of no jobs: " + out
        message = err.strip()[-500:] or "squeue did not answer in time"
        return {"ok": False, "form": "none", "text": "", "message": message}

    def shrunk(self, answer: dict, form: dict) -> dict:
        """Of each job only what is asked for: some versions say 10 KB of each, and give everybody's."""
        own = os.getuid()
        errors = answer.get("errors")
        if not isinstance(answer.get("jobs"), list) or (errors and not answer["jobs"]):
            # no list is not an empty one: nobody was said to be gone
            message = "squeue --json says of no jobs: %s" % json.dumps(errors or answer)[:500]
            return {"ok": False, "form": "none", "text": "", "message": message}
        jobs = [
            {key: job[key] for key in form["keys"] if key in job}
            for job in answer["jobs"]
            if job.get("user_id", own) == own
        ]
        return {"ok": True, "form": "json", "jobs": jobs, "text": "", "message": ""}

    def accounting(self, attempts: dict, queue: dict) -> str:
        """What the accounting knows of jobs that squeue has forgotten and that left no word."""
        known = known_jobs(queue)
        lost = [
            told["job"]["job_id"]
            for told in attempts.values()
            if told.get("there") and "job" in told and "exit" not in told and told["job"]["job_id"] not in known
        ]
        if not lost:
            return ""
        words = ["sacct", "-n", "-X", "-P", "--duplicates", "-o", "JobIDRaw,State,ExitCode,End,JobName", "-j"]
        return self.run([*words, ",".join(lost)], b"", self.left_s())[1]

    def left_s(self) -> float:
        return max(0.1, self.end - time.monotonic())

    def run(self, words: list, stdin: bytes, timeout_s: float, keep: tuple = ()) -> tuple:
        """Code (None when time ran out; 127 for a missing program), standard output and standard error."""
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=self.environ, cwd=self.root if os.path.isdir(self.root) else "/", pass_fds=keep,
            )  # fmt: skip
        except (FileNotFoundError, PermissionError):
            return 127, "", "there is no program %s here; is Slurm installed, and on the PATH?" % words[0]
        try:
            out, err = process.communicate(stdin, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            # a site's command may be a script around Slurm's own, which holds them: that is waited for by nobody
            for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
                with contextlib.suppress(OSError):
                    pipe.close()
            return None, "", ""
        return process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")


def submitted_job(out: str) -> str:
    """Its id, as ``--parsable`` gives it: ``17`` or ``17;CLUSTER``. A site's own sbatch may say more around it."""
    words = [line.strip().split(";")[0] for line in out.splitlines()]
    return next((word for word in reversed(words) if re.match(r"[0-9]+\Z", word)), "")


def is_sound(record: dict) -> bool:
    """Whether it can be what our programs write: the engine may write there too, and a disk may lose parts."""
    for name in TYPES:
        if name in record:
            value = record[name]
            if type(value) not in TYPES[name] or (type(value) in MOST and not abs(value) < MOST[type(value)]):
                return False
    return not record.get("port") or 0 < record["port"] < 65536


def is_launched(records: Any) -> bool:
    """Whether it is settled what became of the launch: it has a job, was stopped before it, or is not there."""
    return records is None or any(name in records for name in ("sealed", "job.json", "owner.json"))


def marked_jobs(queue: dict, name: str, nonce: str = "") -> list:
    """Id, and whether it is over, of each job of that name which carries our mark (and the nonce of that launch)."""
    wanted = mark(name, nonce)
    found = []
    for line in queue["text"].splitlines() if queue["form"] == "fixed" else ():
        words = line.split()
        if any(word.startswith(wanted) for word in words):
            found.append((words[0], words[1].startswith(OVER)))
    for job in queue.get("jobs", ()):
        if str(job.get("comment", "")).startswith(wanted):
            found.append((str(job["job_id"]), is_over(job)))
    return found


def mark(name: str, nonce: str) -> str:
    """What a job of ours carries as its comment."""
    return "hostler:" + name + ":" + nonce


def jobs_by_mark(queue: dict) -> dict:
    """Per mark the ids of the jobs that carry it, and whether each will not run again."""
    found: dict = {}
    for line in queue["text"].splitlines() if queue["form"] == "fixed" else ():
        words = line.split()
        for word in words[2:]:
            if word.startswith("hostler:"):
                found.setdefault(word, {})[words[0]] = words[1].startswith(OVER)
    for job in queue.get("jobs", ()):
        words = str(job.get("comment", "")).split()
        if words:
            found.setdefault(words[0], {})[str(job["job_id"])] = is_over(job)
    return found


def known_jobs(queue: dict) -> set:
    """Ids of all jobs in an answer."""
    return known_ids(queue["text"]) | {str(job.get("job_id")) for job in queue.get("jobs", ())}


def known_ids(text: str) -> set:
    """The same, of lines in fixed columns."""
    return {line.split(None, 1)[0] for line in text.splitlines() if re.match(r"[0-9]+\s", line)}


def job_states(queue: dict) -> dict:
    """Per job's id the state that it has, with the flags that newer versions tell beside it."""
    found = {str(job["job_id"]): state_words(job) for job in queue.get("jobs", ())}
    for line in queue["text"].splitlines() if queue["form"] == "fixed" else ():
        words = line.split(None, 2)
        if len(words) > 1:
            found[words[0]] = words[1]
    return found


def job_restarts(queue: dict) -> dict:
    """Per job's id how often Slurm ran it again."""
    found = {}
    for job in queue.get("jobs", ()):
        count = job.get("restart_cnt") or 0
        # newer versions tell a number as an object
        found[str(job["job_id"])] = count if isinstance(count, int) else count.get("number", 0)
    for line in queue["text"].splitlines() if queue["form"] == "fixed" else ():
        words = line.split(None, 3)
        if len(words) > 2 and words[2].isdigit():
            found[words[0]] = int(words[2])
    return found


def is_over(job: dict) -> bool:
    """Of a job in JSON."""
    state = state_words(job)
    return state.startswith(OVER) and not any(word in state for word in ("COMPLETING", "REQUEUE"))


def state_words(job: dict) -> str:
    """Of a job in JSON; newer versions list them."""
    state = job.get("job_state")
    return state if isinstance(state, str) else " ".join(state or ())


def last_lines(data: bytes, lines: int, limit: int) -> bytes:
    kept = data.split(b"\n")
    kept = kept[:-1] if data.endswith(b"\n") else kept
    return b"\n".join(kept[len(kept) - min(lines, len(kept)) :])[-limit:] if lines and data else b""


def link_once(file: str, place: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.link(file, place)


def lock_file(file: int) -> None:
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
