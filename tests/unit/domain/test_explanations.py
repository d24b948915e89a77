"""One rule per state and situation, each with a command that exists."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest

from app.domain.explanations import Gang, Situation, explain
from app.domain.lifecycle import LIVE, TERMINAL, Reason, State
from hostler.cli import main

ID = "0123456789ab"
#: situation -> rule, a word of the text, the command
TABLE: list[tuple[dict[str, Any], str, str, str]] = [
    ({"state": "pending", "position": 1, "slots_free": 2, "task_id": "t"}, "queued", "number 1", "task get t"),
    ({"state": "pending", "position": 7, "slots_total": 4}, "pool_full", "All 4 slots", "replica list --pool p"),
    ({"state": "pending", "pool_state": "draining"}, "pool_draining", "draining", "pool resume p"),
    ({"state": "pending", "slots_free": 2, "workers_heard": False}, "no_worker", "No worker", "doctor"),
    ({"state": "pending", "slots_free": 2, "gpus_wanted": 2, "gpus_free": 1}, "no_gpu", "wants 2", "node list"),
    ({"state": "pending", "slots_free": 2, "ports_free": 0, "position": 1}, "no_port", "HOSTLER_PORTS", "node list"),
    ({"state": "pending", "slots_free": 2, "position": 2, "first": "f"}, "behind", "replica f", "replica explain f"),
    (
        {"state": "pending", "gang": Gang(4, 0, "slots", 3), "position": 1},
        "pool_full",
        "4 slots together",
        "replica list --pool p",
    ),
    (
        {"state": "pending", "gang": Gang(4, 8, "gpus", 3), "position": 1},
        "no_gpu",
        "waits for 8 GPUs together",
        "node list",
    ),
    ({"state": "pending", "gang": Gang(4, 0, "ports", 3), "position": 1}, "no_port", "4 ports together", "node list"),
    ({"state": "pending", "gang": Gang(2, 0, "members", 1)}, "gang_incomplete", "not all there", "service list"),
    (
        {"state": "pending", "slots_free": 2, "position": 1, "gang": Gang(2, 0, None, 0)},
        "queued",
        "number 1",
        f"replica get {ID}",
    ),
    ({"state": "scheduling", "capacity_held": True, "task_id": "t"}, "launched_next", "taken together", "task get t"),
    ({"state": "scheduling", "lease_held": True}, "launching", "launching it", f"replica events {ID}"),
    ({"state": "scheduling", "task_id": "t"}, "launcher_lost", "takes it over", "task get t"),
    (
        {"state": "scheduling", "submitted": True, "cluster": {"job_id": "7", "state": "PENDING", "why": "Resources"}},
        "cluster_queue",
        "job 7 in its queue (PENDING, Resources) and does not say when",
        f"replica get {ID}",
    ),
    (
        {"state": "scheduling", "submitted": True, "node": "n1", "message": "pulls its image"},
        "backend_queue",
        "host n1 took it and has not started it yet. pulls",
        f"replica get {ID}",
    ),
    (
        {"state": "scheduling", "submitted": True, "cluster": {"expected_start": "soon", "command": "squeue -j 7"}},
        "cluster_queue",
        "expects to start it at soon. Seen there with `squeue -j 7`",
        f"replica get {ID}",
    ),
    (
        {"state": "unhealthy", "reason": Reason.PREEMPTED, "message": "requeued"},
        "preempted",
        "took its place away. Its cluster has it in its queue (requeued)",
        f"replica events {ID}",
    ),
    (
        {"state": "unhealthy", "reason": Reason.PREEMPTED, "port": 4},
        "preempted",
        "yet to answer where it runs now",
        f"replica events {ID}",
    ),
    (
        {"state": "scheduling", "tried_again_at": "soon", "message": "no route", "task_id": "t"},
        "launch_retried",
        "could not be asked: no route. It is tried again at soon",
        "task get t",
    ),
    (
        {"state": "scheduling", "retrying": True, "message": "no route", "task_id": "t"},
        "launch_retried",
        "It is tried again now",
        "task get t",
    ),
    (
        {"state": "starting", "lease_held": True, "node": "n1", "host_silent_s": 9.0},
        "host_silent",
        "Host n1, which launches it, was not heard of for 9 s",
        "node get n1",
    ),
    ({"state": "scheduling", "looked_at": False}, "no_agent", "No agent serves pool p", "node list"),
    ({"state": "ready", "looked_at": False}, "no_agent", "what is known of it is old", "node list"),
    (
        {"state": "waiting_for_ready", "reason": Reason.PREEMPTED, "port": 4},
        "preempted",
        "runs again and does not answer",
        f"replica logs {ID} -f",
    ),
    (
        {"state": "stopping", "message": "stop: no route", "stop_trouble": "no route"},
        "stopping",
        f"not seen gone yet. Its stop: no route. It is asked again; if that place never comes back, an admin can give"
        f" it up: `hostler replica stop {ID} --abandon`.",
        f"replica stop {ID} --force",
    ),
    ({"state": "failed", "left_behind": True, "message": "given up by a"}, "given_up", "by a", f"replica events {ID}"),
    ({"state": "preparing", "lease_held": True}, "launching", "preparing it", f"replica events {ID}"),
    ({"state": "starting", "lease_held": True}, "launching", "launching it", f"replica events {ID}"),
    ({"state": "starting"}, "starting", "not seen alive yet", f"replica logs {ID}"),
    ({"state": "waiting_for_ready", "port": 20001}, "waiting_for_ready", "port 20001", f"replica logs {ID} -f"),
    ({"state": "ready"}, "ready", "answers", f"replica get {ID}"),
    ({"state": "ready", "check_failures": 2}, "probes_failing", "2 probes", f"replica health {ID}"),
    ({"state": "unhealthy", "check_failures": 5, "message": "503"}, "probes_failed", "503", f"replica restart {ID}"),
    ({"state": "unreachable", "node": "n1"}, "backend_silent", "proves nothing", "node get n1"),
    ({"state": "unreachable"}, "backend_silent", "proves nothing", "doctor"),
    ({"state": "stopping"}, "stopping", "not seen gone", f"replica stop {ID} --force"),
    ({"state": "stopping", "restarting": True}, "restarting", "next one queues", f"replica events {ID}"),
    ({"state": "stopped"}, "stopped", "nothing of it is held", f"replica restart {ID}"),
    ({"state": "stopped", "reason": Reason.CANCELLED}, "stopped", "because cancelled", f"replica restart {ID}"),
    ({"state": "stopped", "cleanup_pending": True}, "cleanup_pending", "slot", f"replica stop {ID} --force"),
    (
        {"state": "failed", "reason": Reason.PROCESS_EXITED, "message": "exited with code 1"},
        "failed_process_exited",
        "exited with code 1",
        f"replica logs {ID}",
    ),
    ({"state": "failed", "cleanup_pending": True}, "cleanup_pending", "keeps killing", f"replica stop {ID} --force"),
]


def situation(**more: Any) -> Situation:
    return Situation(**{"replica_id": ID, "pool": "p", **more, "state": State(more["state"])})


@pytest.mark.parametrize("now, rule, words, command", TABLE, ids=[f"{row[0]['state']}-{row[1]}" for row in TABLE])
def test_rule(now: dict[str, Any], rule: str, words: str, command: str) -> None:
    found = explain(situation(**now))
    assert found.rule == rule
    assert words in found.text
    assert found.command == f"hostler {command}"


def test_the_table_has_a_case_for_each_state() -> None:
    assert {row[0]["state"] for row in TABLE} == {str(state) for state in State}


def test_every_situation_has_a_rule_a_sentence_and_a_command_that_exists() -> None:
    for state, held, cleanup, draining, task in product(State, *[(True, False)] * 3, ("t1", None)):
        if cleanup and state in LIVE:
            continue
        found = explain(
            situation(
                state=state,
                reason=Reason.BACKEND_ERROR if state in TERMINAL else None,
                lease_held=held,
                cleanup_pending=cleanup,
                pool_state="draining" if draining else "active",
                task_id=task,
            )
        )
        assert re.fullmatch(r"[a-z_]+", found.rule)
        assert found.text.endswith((".", ": ", ":")) or found.text
        _assert_command(found.command)


def _assert_command(line: str) -> None:
    program, *words = line.split()
    assert program == "hostler"
    command: Any = main
    for word in words:
        if not hasattr(command, "commands"):
            break
        assert word in command.commands, line
        command = command.commands[word]
