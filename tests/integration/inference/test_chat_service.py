"""The chat of a service: whose replicas answer, before the first of them is ready and while they change."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import text

from app.usecases.context import Context
from tests.integration.inference.conftest import Served
from tests.integration.inference.test_chat import SEED, said
from tests.integration.inference.test_prompts import Service, asked, run
from tests.integration.inference.test_server import state
from tests.support.embedded import wait_until
from tests.support.problems import assert_problem

ASK = SEED | {"max_tokens": 5}


def forget(ctx: Context, replica_id: str) -> None:
    """As a worker that died and was seen gone."""
    with ctx.database.begin() as connection:
        connection.execute(
            text("UPDATE replicas SET state = 'failed', reason = 'process_exited', released_at = hostler_now()"
                 " WHERE id = :id"),
            {"id": replica_id},
        )  # fmt: skip


def test_the_chats_service_goes_before_whatever_else_is_ready(served: Served) -> None:
    one = run(served, model="m")
    other = served.run("other", "mock")
    Service(served, 1, model="m", name="chat").ready(one.port).open()
    for _ in range(3):
        assert len(said(served.post("/chat", ASK)).split()) == 5
    assert (asked(one), state(other)["started"]) == (3, 0)
    assert state(one)["last_request"]["repetition_penalty"] == 1.1


def test_it_starts_until_its_own_first_worker_was_ready(served: Served) -> None:
    served.run("other", "mock")
    service = Service(served, 1, model="m", name="chat").open()
    told = assert_problem(served.post("/chat", ASK), 503, "starting")
    assert "hostler service get chat" in told["errors"]["service"][0]
    one = run(served, model="m")
    service.ready(one.port)
    served.door.close()
    service.open()
    assert said(served.post("/chat", ASK))


def test_a_model_without_a_chat_template_goes_on_from_the_text(served: Served) -> None:
    one = run(served, model="gpt2")
    Service(served, 1, model="gpt2", name="chat").ready(one.port).open()
    assert len(said(served.post("/chat", ASK)).split()) == 5
    seen = state(one)["last_request"]
    assert seen["prompt"] == f"{SEED['system_prompt']}\n\n{SEED['prompt']}"
    wanted = {"max_tokens": 5, "temperature": 0.8, "top_p": 0.9, "repetition_penalty": 1.1}
    assert {name: seen[name] for name in wanted} == wanted


def test_while_its_model_changes_each_worker_is_asked_for_its_own(served: Served) -> None:
    old, new = run(served, model="old"), run(served, model="new")
    service = Service(served, 2, model="old", name="chat").ready(old.port, new.port).open()
    with served.ctx.database.begin() as connection:
        connection.execute(text("UPDATE replicas SET model_name = 'new' WHERE id = :id"), {"id": service.replicas[1]})
    for _ in range(8):
        said(served.post("/chat", ASK))
    assert (asked(old) > 0, asked(new) > 0) == (True, True)
    said(served.post("/chat", ASK, served.make_key(models=["old", "new"])))
    assert_problem(served.post("/chat", ASK, served.make_key(models=["new"])), 403, "model_forbidden")


@pytest.mark.parametrize("leaves", [False, True], ids=["comes", "none"])
def test_who_finds_no_worker_waits_for_one(served: Served, leaves: bool) -> None:
    one = run(served, model="m")
    service = Service(served, 2, model="m", name="chat").ready(one.port, one.port).open()
    for replica_id in service.replicas:
        forget(served.ctx, replica_id)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(served.post("/chat", ASK)))
    asking.start()
    wait_until(lambda: served.app.extensions["hostler-chat"].room._taken == 1, 10, "one that waits")
    with served.ctx.database.begin() as connection:
        if leaves:
            connection.execute(text("UPDATE services SET desired_state = 'cancelled'"))
        else:
            connection.execute(
                text("UPDATE replicas SET state = 'ready', reason = NULL, released_at = NULL WHERE id = :id"),
                {"id": service.replicas[0]},
            )
    asking.join(20)
    assert [answer.status_code for answer in answers] == [503 if leaves else 200]


def test_more_than_may_wait_are_told(served: Served) -> None:
    service = Service(served, 1, model="m", name="chat").ready(1).open()
    forget(served.ctx, service.replicas[0])
    room = served.app.extensions["hostler-chat"].room
    room.most = 0
    answer = served.post("/chat", ASK)
    assert_problem(answer, 429, "route_full")
    assert int(answer.headers["Retry-After"]) > 0
