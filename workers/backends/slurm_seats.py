"""Attempts that share a job, on the host where Slurm's commands are: what ``slurm_there.py`` does for them besides.

A shared job has a folder ``.shared/KEY-NUMBER`` beside those of the attempts. ``KEY`` stands for all that must be equal
for two attempts to share a job; of two launchers who want a first job, or the next, one makes the folder of that number
by one ``rename`` and submits, and the other one takes a seat in it. A seat is taken by one ``link``
(``slurm_share.py``); the attempt's own folder is there before, so that what the seat names can be looked up.

``launch.json``  seats, GPUs of each, the public half of the job's key (``slurm_seal.py``), a nonce that it must know
``seats/N``      who has that seat; no such folder: the job is closed
``members/NAME`` every attempt that ever had one, until it is forgotten
and in the attempt's folder ``seat.json``: the job and the seat. The rest is as of an attempt with a job of its own.
"""

import base64
import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from typing import Any

from workers.backends.slurm_seal import sealed_for
from workers.backends.slurm_there import (
    BOOTTIME,
    KILLING_S,
    Refused,
    There,
    clock,
    is_launched,
    is_sound,
    job_restarts,
    job_states,
    jobs_by_mark,
    lock_file,
    mark,
    marked_jobs,
)

SHARED = ".shared"
#: In the script and the name of a job whose number is not known yet.
NUMBER_LATER = "@HOSTLER_NUMBER@"
#: States of a job in which a seat of it can be taken.
OPEN = ("PENDING", "CONFIGURING", "RUNNING", "SUSPENDED")
#: So often somebody may be faster.
TRIES = 20
WAIT_S = 0.05
#: After so long of killing the last ones on it, it is the job's supervisor that hangs.
SUPERVISOR_S = 2 * KILLING_S
#: A job whose supervisor told so recently that it lives is not tidied away.
ALIVE_S = 60.0
#: One that told nothing for so long hangs, or its node does: what it should have done is done here; nobody joins it.
SILENT_S = 30.0


class Seats(There):
    """The host, for attempts of both kinds."""

    # -- launching

    def submit(self, folder: str, request: dict, lock: int) -> dict:
        if "share" not in request:
            return There.submit(self, folder, request, lock)
        self.refuse_stopped(folder)
        try:
            for _ in range(TRIES):
                # before it looks for a seat: a job that another launcher makes meanwhile has this number
                number = 1 + max([number for number, _ in self.numbered(request["share"]["key"])], default=-1)
                job = self.joined(folder, request) or self.founded(folder, request, lock, number)
                if job:
                    self.write(folder, "job.json", {"job_id": job})
                    return {"job_id": job}
        except Refused as refusal:
            if refusal.kind == "refused" or self.seat_of(request["name"]) is None:
                self.remove(folder)
            raise
        self.remove(folder)
        raise Refused("unavailable", "others were faster to every seat; nothing was started")

    def joined(self, folder: str, request: dict) -> Any:
        """The job in which it got a seat; None when there is none to be had."""
        shares = [share for share in self.shares(request["share"]["key"]) if self.has_room(share)]
        for share in self.living(shares, request["format"]):
            if self.claim(share, folder, request):
                job = self.wait_submitted(share, request["deadline_s"])
                if job:
                    return job
                self.forget_seat(folder)
        return None

    def living(self, shares: list, form: dict) -> list:
        """Those whose job runs, then those being submitted or waiting. One question, unless there are none."""
        held = {share for share in shares if not self.job_of(share) and self.is_held(share)}
        others = {share: self.read(share, "launch.json") for share in shares if share not in held}
        others = {share: plan for share, plan in others.items() if plan}  # else it was removed in this moment
        if not others:
            return sorted(held)
        queue = self.queue(sorted({plan["job_name"] for plan in others.values()}), form)
        if not queue["ok"]:
            raise Refused("unavailable", queue["message"])
        states, own, restarts = job_states(queue), jobs_by_mark(queue), job_restarts(queue)
        running: list = []
        found: list = []
        for share in shares:
            if share in others and not self.job_of(share):
                self.note_job(share, queue)
            state = ""
            if share in others:
                plan, job = others[share], self.job_of(share)
                # one whose founder died before it came so far has no job
                state = states.get(job, "") if job in own.get(mark(plan["job_name"], plan["nonce"]), {}) else ""
                if state.split(" ")[0] not in OPEN or "COMPLETING" in state or self.is_late(share):
                    continue
                if is_on_node(state) and self.is_silent(share, restarts.get(job)):
                    continue
            if share in held or share in others:
                (running if state.startswith("RUNNING") else found).append(share)
        # a free seat has its GPUs now; one in the cluster's queue may wait for days
        return running + found

    def is_late(self, share: str) -> bool:
        """More than half of its time is over: who comes now may come because of that, and wants more."""
        limit_s = self.read(share, "launch.json").get("limit_s")
        try:
            begun = os.stat(os.path.join(share, "run.json")).st_mtime
        except FileNotFoundError:
            return False
        return limit_s is not None and self.time_of_files() - begun > limit_s / 2

    def claim(self, share: str, folder: str, request: dict) -> bool:
        """Take a free seat of it; False when it has none or is closed."""
        plan = self.read(share, "launch.json")
        if not plan:
            return False
        launch = self.read(folder, "launch.json")
        draft = self.drafted(folder, self.entry(plan, launch, request))
        try:
            for seat in range(plan["seats"]):
                self.mark_member(share, launch["name"])
                if linked(draft, os.path.join(share, "seats", str(seat))):
                    self.note_seat(folder, share, plan, seat)
                    return True
        except FileNotFoundError:  # closed in this moment
            return False
        finally:
            os.unlink(draft)
        self.unmark_member(share, launch["name"])
        return False

    def entry(self, plan: dict, launch: dict, request: dict) -> dict:
        about = launch["name"] + ":" + launch["nonce"]
        key = sealed_for(plan["public"], request["share"]["opens"].encode(), about)
        return {"name": launch["name"], "nonce": launch["nonce"], "key": key}

    def wait_submitted(self, share: str, deadline_s: float) -> Any:
        """The job's id, once its founder has it; None when Slurm refused it."""
        while True:
            held = self.is_held(share)
            job = self.job_of(share)
            if job:
                return job
            if not os.path.isdir(share):
                return None
            if not held or time.clock_gettime(BOOTTIME) > deadline_s:
                raise Refused("unavailable", "whether the job that it is to share was submitted is not known yet")
            time.sleep(WAIT_S)

    def founded(self, folder: str, request: dict, lock: int, number: int) -> Any:
        """A new job with this attempt on its first seat; None when another launcher made that job meanwhile."""
        wish = request["share"]
        plan = dict(wish["plan"], job_name=wish["plan"]["job_name"].replace(NUMBER_LATER, str(number)))
        launch = self.read(folder, "launch.json")
        share = os.path.join(self.root, SHARED, "%s-%d" % (wish["key"], number))
        os.makedirs(os.path.dirname(share), mode=0o700, exist_ok=True)
        staging = self.stage("shared", {"launch.json": plan}, wish["files"])
        try:
            for part in ("seats", "members"):
                os.mkdir(os.path.join(staging, part))
            self.mark_member(staging, launch["name"])
            self.write(os.path.join(staging, "seats"), "0", self.entry(plan, launch, request))
            submitting = os.open(os.path.join(staging, "submit.lock"), os.O_RDWR | os.O_CREAT, 0o600)
            lock_file(submitting)
            os.set_inheritable(submitting, True)
            try:
                os.rename(staging, share)
            except OSError:
                os.close(submitting)
                if os.path.isdir(share):
                    return None
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self.note_seat(folder, share, plan, 0)
        script = base64.b64decode(wish["script"]).replace(NUMBER_LATER.encode(), str(number).encode())
        try:
            job = self.sbatch(script, request["deadline_s"], (lock, submitting))
        except Refused as refusal:
            if refusal.kind == "refused":
                self.remove(share)
            raise
        self.write(share, "job.json", {"job_id": job})
        return job

    def do_adopt(self, request: dict) -> dict:
        name, folder = request["name"], self.path(request["name"])
        records = self.records(folder)
        if records is None or "share" not in records.get("launch.json", {}):
            return There.do_adopt(self, request)
        if is_launched(records) or self.is_held(folder):
            return {"attempt": self.attempt(name, records)}
        seat = self.seat_of(name)
        if seat is not None:
            share = self.share_of(seat)
            if self.job_of(share) or self.is_held(share):
                return {"attempt": self.attempt(name, self.seated(name))}
            queue = self.queue([seat["job_name"]], request["format"])
            if not queue["ok"]:
                raise Refused("unavailable", queue["message"])
            self.note_job(share, queue)
            if self.job_of(share):
                return {"attempt": self.attempt(name, self.seated(name)), "queue": queue}
            # nobody submits it and Slurm does not have it. A job that Slurm accepts yet finds its folder gone
            self.remove(share)
        self.remove(folder)
        return {"attempt": self.attempt(name, None)}

    # -- looking

    def do_look(self, request: dict) -> dict:
        names = request["names"]
        asked = {name for name in names if os.path.exists(os.path.join(self.path(name), "stop.json"))}
        answer = There.do_look(self, request)
        queue = answer["queue"]
        waiting, own = waiting_by_mark(queue), jobs_by_mark(queue)
        states, restarts = job_states(queue), job_restarts(queue)
        for name in names:
            told = answer["attempts"][name]
            seat = told.get("seat")
            if not seat or "by" in told.get("over", {}) or not (name in asked or "exit" in told):
                continue
            job, marked = told.get("job", {}).get("job_id"), mark(seat["job_name"], seat["nonce"])
            if name in asked and job in waiting.get(marked, ()):
                told["over"] = self.leave_seat(name, seat, "stop")
            elif job in own.get(marked, {}) and is_on_node(states.get(job, "")):
                share = self.share_of(seat)
                told["silent"] = self.is_silent(share, restarts.get(job))
                # the others are to be killed too: then Slurm ends the job
                others = [entry for entry in self.taken(share).values() if entry["name"] != name]
                told["alone"] = all(map(self.is_to_be_killed, others))
                if told["silent"] and self.has_ended(share, told, name in asked):
                    told["over"] = self.leave_seat(name, seat, "stop" if name in asked else "job")
        return answer

    def has_ended(self, share: str, told: dict, asked: bool) -> bool:
        """Whether nothing of it is left, nor comes, by what its own part on the node wrote in this run of the job."""
        if asked and "owner" not in told:
            return True  # should it begin all the same, it finds stop.json and starts nothing
        ended, run = told.get("exit", {}), self.read(share, "run.json")
        of_this_run = [ended.get(part) == run.get(part) for part in ("job_id", "restarts")]
        return all(of_this_run) and ended.get("left") == 0 and bool(asked or ended.get("own"))

    def is_silent(self, share: str, restarts: Any) -> bool:
        """Whether the job's program began this run, and has told nothing since long."""
        try:
            # opened: NFS then asks for the times anew
            with open(os.path.join(share, "alive"), "rb") as file:
                alive = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return False
        return self.read(share, "run.json").get("restarts") == restarts and self.time_of_files() - alive > SILENT_S

    def job_names(self, names: list) -> list:
        found = {}
        for name in names:
            seat = self.seat_of(name)
            if seat is not None and not os.path.exists(os.path.join(self.path(name), "job.json")):
                self.seated(name)
            found[name if seat is None else seat["job_name"]] = True
        return list(found)

    def leave_seat(self, name: str, seat: dict, by: str) -> dict:
        """It has ended, or was to end before Slurm said that its job waits: no run that comes will start it."""
        share, folder = self.share_of(seat), self.path(name)
        self.free(share, seat)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "private"))
        over = dict(clock(), by=by)
        self.write(folder, "over.json", over)
        self.cancel_empty(share)
        return over

    def cancel_empty(self, share: str) -> None:
        """A job that waits, or hangs, with no seat taken is closed, and then not wanted. ``do_list`` tries it again."""
        if not self.closed(share) and os.path.isdir(os.path.join(share, "seats")):
            return
        job = self.job_of(share)
        if job:
            self.ask_slurm(job, self.read(share, "launch.json").get("job_name", ""))

    def closed(self, share: str) -> bool:
        """Whether nobody gets a seat of it from this moment on: not while one is taken, nor where it was closed."""
        try:
            os.rmdir(os.path.join(share, "seats"))
        except OSError:
            return False
        return True

    def do_end_idle(self, request: dict) -> dict:
        """Jobs on which no seat is taken wait for nobody any more. Who launches at this moment founds the next one.

        Closed they end by themselves, should Slurm not hear of it: one that runs looks for that, and one that begins.
        """
        ended = {}
        for share in self.shares():
            name = self.read(share, "launch.json").get("job_name", "")
            ours = re.match("^%s[0-9a-f]+-[0-9]+$" % re.escape(request["prefix"] + "shared-"), name)
            if ours and self.closed(share):
                ended[name] = self.job_of(share)
        for name, job in ended.items():
            if job:
                self.ask_slurm(job, name)
        return {"ended": sorted(ended)}

    def is_unsubmitted(self, folder: str) -> bool:
        if There.is_unsubmitted(self, folder):
            return True
        seat = self.read(folder, "seat.json")
        return bool(seat) and There.is_unsubmitted(self, self.share_of(seat))

    def mark_of(self, name: str, records: dict) -> str:
        seat = records.get("seat.json")
        return mark(seat["job_name"], seat["nonce"]) if seat else There.mark_of(self, name, records)

    def note_over(self, folder: str, records: Any, own: dict) -> None:
        There.note_over(self, folder, records, own)
        seat = (records or {}).get("seat.json")
        if seat and own.get(self.job_of(self.share_of(seat))):
            with contextlib.suppress(OSError):
                self.write_once(self.share_of(seat), "over.json", clock())

    def attempt(self, name: str, records: Any) -> dict:
        told = There.attempt(self, name, records)
        told.get("launch", {}).pop("argv", None)
        if "seat" in told:
            told["began"] = os.path.exists(os.path.join(self.share_of(told["seat"]), "owner.json"))
        return told

    def slurm_said(self, folder: str, place: Any, limit: int) -> bytes:
        """Its own part's words; before that began, those of the job."""
        seat = self.read(folder, "seat.json")
        if seat and not os.path.exists(os.path.join(folder, "slurm.out")):
            folder = self.share_of(seat)
        return There.slurm_said(self, folder, place, limit)

    # -- ending

    def end_job(self, folder: str, records: Any, request: dict) -> None:
        seat = self.seat_of(request["name"])
        if seat is None:
            There.end_job(self, folder, records, request)
            return
        if os.path.exists(os.path.join(folder, "over.json")):
            return
        kills, killing_s = self.wish_end(folder, request)
        if "owner.json" not in records:
            # should it begin all the same, it finds stop.json and starts nothing
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(folder, "private"))
        share = self.share_of(seat)
        job = self.job_of(share)
        if not job:
            return
        if (kills or "stop.json" not in records) and os.path.exists(os.path.join(share, "run.json")):
            # the others on it are not meant: its supervisor looks whose wish it is
            self.ask_slurm(job, seat["job_name"], "--batch", "--signal=USR1", "--state=RUNNING")
        if kills and all(self.is_to_be_killed(entry) for entry in self.taken(share).values()):
            # its supervisor kills what hangs; one that hangs itself Slurm ends, when nobody is left to lose by it
            how = [] if killing_s >= SUPERVISOR_S else ["--state=SUSPENDED"]
            self.ask_slurm(job, seat["job_name"], *how)

    def is_to_be_killed(self, entry: dict) -> bool:
        return os.path.exists(os.path.join(self.path(entry["name"]), "kill.json"))

    def do_list(self, request: dict) -> dict:
        """Also which jobs are shared ones: those are known by their members."""
        answer = There.do_list(self, request)
        queue = answer["queue"]
        waiting, marked = waiting_by_mark(queue), jobs_by_mark(queue)
        states, restarts = job_states(queue), job_restarts(queue)
        shared = []
        for share in self.shares():
            plan = self.read(share, "launch.json")
            if plan:
                shared.append([plan["job_name"], plan["nonce"]])
                own, job = mark(plan["job_name"], plan["nonce"]), self.job_of(share)
                if not self.taken(share) and job in marked.get(own, {}):
                    hangs = is_on_node(states.get(job, "")) and self.is_silent(share, restarts.get(job))
                    if hangs or job in waiting.get(own, ()):
                        self.cancel_empty(share)
        return dict(answer, shared=shared)

    def do_close(self, request: dict) -> dict:
        seat = self.seat_of(request["name"])
        answer = There.do_close(self, request)
        if seat is not None:
            share = self.share_of(seat)
            self.unmark_member(share, request["name"])
            closed = not os.path.isdir(os.path.join(share, "seats")) or os.path.exists(os.path.join(share, "over.json"))
            if closed and self.is_left(share):
                self.remove(share)
        return answer

    def do_tidy(self, request: dict) -> dict:
        found = There.do_tidy(self, request)["found"]
        for share in self.shares():
            with contextlib.suppress(FileNotFoundError):
                if time.time() - os.stat(share).st_mtime > request["older_s"] and self.is_left(share):
                    found.append(os.path.join(SHARED, os.path.basename(share)))
                    if not request["dry_run"]:
                        self.remove(share)
        return {"found": sorted(found)}

    def is_left(self, share: str) -> bool:
        """Nobody has a record of a seat in it, and it has nobody at work. A job that begins yet finds it gone."""
        if any(os.path.isdir(self.path(name)) for name in listed(os.path.join(share, "members"))):
            return False
        if not self.job_of(share):
            return not self.is_held(share)
        try:
            alive = os.stat(os.path.join(share, "alive")).st_mtime
        except FileNotFoundError:
            return True
        parts = {part: os.path.exists(os.path.join(share, part)) for part in ("seats", "over.json")}
        return parts["over.json"] or not parts["seats"] or self.time_of_files() - alive > ALIVE_S

    # -- folders

    def numbered(self, key: str = "") -> list:
        """(number, folder) of the shared jobs, of one key or of all."""
        found = []
        for name in listed(os.path.join(self.root, SHARED)):
            match = re.match(r"^([0-9a-f]+)-([0-9]+)$", name)
            if match and key in ("", match.group(1)):
                found.append((int(match.group(2)), os.path.join(self.root, SHARED, name)))
        return sorted(found)

    def shares(self, key: str = "") -> list:
        return [share for _, share in self.numbered(key)]

    def share_of(self, seat: dict) -> str:
        """Its job's folder; where there is none any more another job may have that number, whose folder it is not."""
        share = os.path.join(self.root, SHARED, seat["share"])
        others = self.read(share, "launch.json").get("nonce", seat["nonce"]) != seat["nonce"]
        return "%s.%s" % (share, seat["nonce"]) if others else share

    def has_room(self, share: str) -> bool:
        plan = self.read(share, "launch.json")
        seats = os.path.join(share, "seats")
        if not plan or not os.path.isdir(seats) or os.path.exists(os.path.join(share, "over.json")):
            return False
        return len(self.taken(share)) < plan["seats"]

    def taken(self, share: str) -> dict:
        found = {}
        for name in listed(os.path.join(share, "seats")):
            entry = self.read(os.path.join(share, "seats"), name)
            if name.isdigit() and entry:
                found[int(name)] = entry
        return found

    def free(self, share: str, seat: dict) -> None:
        path = os.path.join(share, "seats", str(seat["seat"]))
        if self.read(share, os.path.join("seats", str(seat["seat"]))).get("nonce") == seat["launch"]:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def seat_of(self, name: str) -> Any:
        """Which seat the attempt has or had; None without one. Who took it may have died before he wrote it down."""
        folder = self.path(name)
        seat = self.read(folder, "seat.json")
        if seat:
            return seat
        launch = self.read(folder, "launch.json")
        if "share" not in launch:
            return None
        for share in self.shares(launch["share"]):
            for number, entry in self.taken(share).items():
                if entry["nonce"] == launch["nonce"]:
                    self.note_seat(folder, share, self.read(share, "launch.json"), number)
                    return self.read(folder, "seat.json") or None
        return None

    def note_seat(self, folder: str, share: str, plan: dict, seat: int) -> None:
        told = {
            "share": os.path.basename(share), "job_name": plan["job_name"], "nonce": plan["nonce"], "seat": seat,
            "of": plan["seats"], "at": time.time(), "launch": self.read(folder, "launch.json").get("nonce"),
        }  # fmt: skip
        self.write(folder, "seat.json", told)

    def forget_seat(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "seat.json"))

    def seated(self, name: str) -> Any:
        """The attempt's records, with its job's id among them where that is known."""
        folder = self.path(name)
        job = self.job_of(self.share_of(self.read(folder, "seat.json")))
        if job and not os.path.exists(os.path.join(folder, "job.json")):
            with contextlib.suppress(OSError):
                self.write(folder, "job.json", {"job_id": job})
        return self.records(folder)

    def note_job(self, share: str, queue: dict) -> None:
        """Its founder died before he wrote down what Slurm answered."""
        plan = self.read(share, "launch.json")
        for job, _ in marked_jobs(queue, plan["job_name"], plan["nonce"]) if plan else ():
            with contextlib.suppress(FileNotFoundError):
                self.write(share, "job.json", {"job_id": job})

    def job_of(self, share: str) -> Any:
        record = self.read(share, "owner.json") or self.read(share, "job.json")
        return record.get("job_id")

    def read(self, folder: str, record: str) -> dict:
        """Empty where there is none."""
        try:
            with open(os.path.join(folder, record), encoding="utf-8") as file:
                value = json.load(file)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return {}
        return value if isinstance(value, dict) and is_sound(value) else {}

    def drafted(self, folder: str, value: dict) -> str:
        file, draft = tempfile.mkstemp(prefix=".seat", dir=folder)
        with os.fdopen(file, "w") as out:
            json.dump(value, out)
        return draft

    def mark_member(self, share: str, name: str) -> None:
        os.close(os.open(os.path.join(share, "members", name), os.O_WRONLY | os.O_CREAT, 0o600))

    def unmark_member(self, share: str, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(share, "members", name))


def is_on_node(state: str) -> bool:
    """Whether a job in that state has its program there."""
    return state.startswith(("RUNNING", "SUSPENDED", "STOPPED")) and "COMPLETING" not in state


def waiting_by_mark(queue: dict) -> dict:
    """Per mark the ids of the jobs that carry it and wait."""
    states = job_states(queue).items()
    waiting = {job for job, state in states if state.startswith("PENDING") and "COMPLETING" not in state}
    return {one: waiting & set(jobs) for one, jobs in jobs_by_mark(queue).items()}


def linked(draft: str, place: str) -> bool:
    """Whether the place is ours now. A file system over a network may have done it and say that it was there."""
    before = os.stat(draft).st_nlink
    try:
        os.link(draft, place)
    except FileExistsError:
        return os.stat(draft).st_nlink > before
    return True


def listed(folder: str) -> list:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
