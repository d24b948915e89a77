"""What ``hostler doctor`` says of pools and tunnels, each asked of the real backend in a process of its own."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from app.settings import Settings
from app.stack.findings import FAIL, OK, WARN, Finding
from app.stack.pool_checks import pool_checks, tunnel_check
from app.usecases.context import Actor, Context
from app.usecases.creates import request_create
from app.usecases.keys import ensure_admin_key
from tests.support.backends import publish, write_pool
from tests.support.sshd import Sshd, running_sshd
from tests.support.stacks import free_port
from workers.backends.registry import BACKENDS


@pytest.fixture
def ctx(settings: Settings, tmp_path: Path) -> Iterator[Context]:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    ctx = Context.open(replace(settings, state_dir=state, node_name="here"))
    ensure_admin_key(settings, "k" * 32)
    with ctx.database.begin() as connection:
        connection.execute(text("DELETE FROM pools"))
    publish(ctx, *BACKENDS.values())
    yield ctx
    ctx.close()


@pytest.fixture
def sshd(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "sshd", tmp_path_factory.mktemp("r") / "r") as found:
        yield found


def checked(ctx: Context, longest_s: float = 40) -> dict[str, Finding]:
    return {one.check: one for one in pool_checks(ctx.settings, None, longest_s)}


def test_each_pool_says_whether_its_place_is_reached(ctx: Context, tmp_path: Path) -> None:
    nowhere = {"host": "nowhere", "config": str(tmp_path / "ssh_config")}
    (tmp_path / "ssh_config").write_text(f"Host nowhere\n  HostName 127.0.0.1\n  Port {free_port()}\n")
    write_pool(ctx, "away", "ssh", {"ssh": nowhere})
    write_pool(ctx, "gone", "ssh", {"ssh": nowhere}, state="draining")
    write_pool(ctx, "no-slurm", "slurm", {"commands": str(tmp_path), "slurm_conf": str(tmp_path / "none")})
    write_pool(ctx, "no-daemon", "docker", {"image": "x", "socket": str(tmp_path / "none.sock")})
    write_pool(ctx, "mocked", "mock", {})
    write_pool(ctx, "own", "process", {})
    found = checked(ctx)
    assert list(found) == [f"pool {name}" for name in ("away", "gone", "mocked", "no-daemon", "no-slurm", "own")]
    assert (found["pool own"].result, found["pool mocked"].result) == (OK, OK)
    away = found["pool away"]
    assert (away.result, found["pool gone"].result) == (FAIL, WARN)
    assert "nowhere cannot be reached" in away.detail
    assert away.fix == f"ssh -o BatchMode=yes -F {tmp_path}/ssh_config nowhere true"
    assert "none.sock does not exist" in found["pool no-daemon"].detail
    assert found["pool no-daemon"].result == FAIL
    assert found["pool no-slurm"].result == FAIL
    assert all(one.fix for one in found.values() if one.result != OK)


def test_a_host_that_says_nothing_holds_up_nobody(ctx: Context, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        (tmp_path / "ssh_config").write_text(f"Host silent\n  HostName 127.0.0.1\n  Port {port}\n")
        ssh = {"host": "silent", "config": str(tmp_path / "ssh_config"), "connect_timeout_s": 120}
        for number in range(3):
            write_pool(ctx, f"silent-{number}", "ssh", {"ssh": ssh, "folder": f"/tmp/{number}"})
        write_pool(ctx, "own", "process", {})
        found = checked(ctx, longest_s=5)
    assert found["pool own"].result == OK
    for number in range(3):
        assert found[f"pool silent-{number}"].result == FAIL
        assert "did not answer within 5 s" in found[f"pool silent-{number}"].detail
        assert found[f"pool silent-{number}"].fix == f"hostler pool get silent-{number}"


def test_logins_that_are_refused_and_keys_that_changed(ctx: Context, sshd: Sshd) -> None:
    write_pool(ctx, "well", "ssh", {"ssh": sshd.ssh, "folder": str(sshd.folder / "far"), "python": sys.executable})
    write_pool(ctx, "forged", "ssh", {"ssh": sshd.to(f"{sshd.name}-forged")})
    write_pool(ctx, "no-python", "ssh", {"ssh": sshd.ssh, "python": "no-such-python"})
    write_pool(ctx, "no-slurm", "slurm", {"ssh": sshd.ssh, "commands": "/nonexistent", "slurm_conf": "/nonexistent"})
    found = checked(ctx)
    assert found["pool well"].result == OK, found
    assert "Host key verification failed" in found["pool forged"].detail
    assert found["pool forged"].fix.startswith("ssh -o BatchMode=yes ")
    assert "name one in the pool option python" in found["pool no-python"].detail
    assert {name: one.result for name, one in found.items() if name != "pool well"} == {
        "pool forged": FAIL, "pool no-python": FAIL, "pool no-slurm": FAIL
    }  # fmt: skip


def test_tunnels_that_are_down_or_missing_are_told(ctx: Context) -> None:
    assert [one.result for one in tunnel_check(ctx.settings)] == [OK]
    with ctx.database.read() as connection:
        key_id = connection.execute(text("SELECT id FROM keys")).scalar_one()
    write_pool(ctx, "mock", "mock", {})
    made = [
        request_create(
            ctx,
            Actor(key_id, "admin", "admin"),
            {"server_mode": "replica_mock", "model_name": "m", "pool": "mock"},
        ).replica_id
        for _ in range(3)
    ]
    with ctx.database.begin() as connection:
        for number, replica_id in enumerate(made):
            options = json.dumps({"tunnel": True, "ssh": {"host": "login"}})
            connection.execute(
                text(
                    "UPDATE replicas SET attempt = 1, host = '10.1.1.1', port = 8000, spec = jsonb_set(spec,"
                    " '{resolved,backend_options}', CAST(:options AS jsonb)) WHERE id = :id"
                ),
                {"id": replica_id, "options": options},
            )
            attempt = connection.execute(
                text(
                    "INSERT INTO attempts (replica_id, number, name, pool, backend) VALUES (:id, 1, 'a-' || :id,"
                    " 'mock', 'mock') RETURNING id"
                ),
                {"id": replica_id},
            ).scalar_one()
            if number < 2:
                connection.execute(
                    text(
                        "INSERT INTO tunnels (attempt_id, node, port, to_host, to_port, state, message, since) VALUES"
                        " (:attempt, 'here', 20001, '10.1.1.1', 8000, :state, :message,"
                        " hostler_now() - make_interval(secs => 125))"
                    ),
                    {
                        "attempt": attempt,
                        "state": ("down", "up")[number],
                        "message": ("login: Permission denied (publickey).", "")[number],
                    },
                )
    found = tunnel_check(ctx.settings)
    assert [one.result for one in found] == [FAIL, WARN]
    assert f"replica {made[0]} of pool mock is not reached from host here: its tunnel is down for 12" in found[0].detail
    assert "login: Permission denied (publickey)." in found[0].detail
    assert found[0].fix == f"hostler replica explain {made[0]}"
    assert f"replica {made[2]} has no local end here" in found[1].detail
