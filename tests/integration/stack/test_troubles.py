"""What may be wrong before `up`: it works all the same, or it says what to do, and leaves nothing running."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.settings import Settings
from app.stack.layout import SOCKET_PATH_BYTES
from app.stack.prepare import make_state_dir, prepare
from tests.support import plain_http
from tests.support.stacks import Stack, stack

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Stack]:
    with stack(tmp_path / "state") as made:
        yield made


def refused(fresh: Stack, *words: str, **environ: str) -> str:
    """`up -d` fails with exit code 1 and each of ``words``, and nothing of it runs."""
    done = fresh.hostler("up", "-d", "--port", str(fresh.port), **environ)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not fresh.living()
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    return done.stderr


def prepared(fresh: Stack) -> None:
    """All that a start leaves on disk, without the start."""
    make_state_dir(fresh.state_dir)
    prepare(Settings.load({}, state_dir=fresh.state_dir), fast=True)


def test_a_port_in_use_is_told_with_its_holder(fresh: Stack) -> None:
    with socket.create_server(("127.0.0.1", fresh.port)):
        refused(fresh, f"port {fresh.port}", f"pid {os.getpid()}", "--port")


def test_stale_records_of_a_killed_stack_are_no_obstacle(fresh: Stack) -> None:
    """Files of an earlier life name pids that belong to somebody else now, as after a reboot."""
    prepared(fresh)
    known = {
        "url": fresh.url, "host": "127.0.0.1", "port": fresh.port, "flower_port": 1, "supervisor_pid": os.getpid(),
        "supervisor_start": 1, "version": "0", "postgres_user": "x", "user": "x",
    }  # fmt: skip
    fresh.layout.record.write_text(json.dumps(known))
    (fresh.layout.postgres_data / "postmaster.pid").write_text(f"1\n{fresh.layout.postgres_data}\n1\n5432\n")
    (fresh.state_dir / "supervisor.pid").write_text("1\n")
    for path in (fresh.layout.redis_socket, fresh.layout.supervisor_socket):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    assert "nothing runs" in fresh.hostler("down").stderr
    fresh.up()
    fresh.must("down")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1}'])
def test_a_half_written_record_is_ignored(fresh: Stack, content: str) -> None:
    fresh.state_dir.mkdir(mode=0o700)
    (fresh.state_dir / "lock").touch()
    fresh.layout.record.write_text(content)
    assert json.loads(fresh.must("status", "-o", "json")) == []
    assert fresh.hostler("down").returncode == 0


def test_an_interrupted_first_start_is_finished_by_the_next(fresh: Stack) -> None:
    prepared(fresh)
    home = fresh.layout.postgres
    shutil.rmtree(fresh.layout.postgres_data)
    (home / "data.new.abc").mkdir()
    (home / "data.new.abc" / "PG_VERSION").write_text("18\n")
    (fresh.layout.secrets / ".admin-key.1.abcd").touch()
    fresh.up()
    assert not list(home.glob("data.new.*"))
    fresh.must("down")


def test_a_damaged_database_folder_is_told(fresh: Stack) -> None:
    prepared(fresh)
    (fresh.layout.postgres_data / "PG_VERSION").rename(fresh.state_dir / "away")
    refused(fresh, "is no database", "move")
    (fresh.state_dir / "away").rename(fresh.layout.postgres_data / "PG_VERSION")
    (fresh.layout.secrets / "postgres-password").unlink()
    refused(fresh, "postgres-password", "move")


def test_a_folder_of_other_files_is_not_taken_over(fresh: Stack) -> None:
    fresh.state_dir.mkdir()
    (fresh.state_dir / "thesis.tex").write_text("...")
    (fresh.state_dir / "thesis.tex").chmod(0o644)
    refused(fresh, "thesis.tex", "empty folder")
    assert (fresh.state_dir / "thesis.tex").stat().st_mode & 0o777 == 0o644


def test_a_file_where_the_state_dir_should_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with stack(tmp_path / "file" / "state") as made:
        refused(made, "--state-dir")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        with stack(disk / "state") as made:
            refused(made, "MB free", "make room")
            subprocess.run(["dd", "if=/dev/zero", f"of={disk}/filler", "bs=4k"], check=False, capture_output=True)
            refused(made, "disk", "make room")
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("runtime_dir", [True, False])
def test_a_path_too_long_for_a_socket_works(tmp_path: Path, runtime_dir: bool) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    with stack(deep / "state with 100% ;odd #name") as made:
        made.environ.pop("XDG_RUNTIME_DIR", None)
        made.up(**({"XDG_RUNTIME_DIR": str(runtime)} if runtime_dir and len(str(runtime)) < 50 else {}))
        assert (made.state_dir / "run").is_symlink()
        assert len(str(made.layout.supervisor_socket)) <= SOCKET_PATH_BYTES
        assert made.layout.run.stat().st_mode & 0o077 == 0
        # another shell, without that variable, finds the same sockets
        assert made.processes("redis")
        made.replica()
        run = made.layout.run
        made.must("down")
        assert not run.exists()


def test_a_path_beyond_all_bounds_is_told(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["f" * 200] * 5)
    with stack(deep / "state") as made:
        refused(made, "longer than", "--state-dir")


def test_beyond_loopback_only_with_a_long_key(fresh: Stack) -> None:
    for key in ({}, {"HOSTLER_API_KEY": "k" * 31}):
        done = fresh.hostler("up", "-d", "--host", "0.0.0.0", "--port", str(fresh.port), **key)
        assert done.returncode == 1
        assert "HOSTLER_API_KEY" in done.stderr
    assert not fresh.state_dir.exists()


def test_usage_errors_have_their_own_exit_code(fresh: Stack) -> None:
    assert fresh.hostler("up", "--port", "99999").returncode == 2
    assert fresh.hostler("up", "-d", HOSTLER_WEB_WORKERS="many").returncode == 2
    short = fresh.hostler("up", "-d", HOSTLER_API_KEY="short")
    assert short.returncode == 2
    assert "24 characters" in short.stderr
    assert not fresh.living()


def test_a_first_start_with_models_recipes_and_a_key_of_ones_own(fresh: Stack) -> None:
    fresh.must("model", "make-tiny", "early")
    recipe = fresh.layout.recipes / "lab" / "early.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("engine: mock\n")
    said = fresh.up(HOSTLER_API_KEY="a key of any form, 24+ ch.")
    assert "admin key" not in said
    assert fresh.key == "a key of any form, 24+ ch."
    assert "early" in [row["name"] for row in fresh.call("GET", "/api/v1/models")["models"]]
    assert fresh.call("GET", "/api/v1/recipes/early")["state"] == "ok"
    assert "from the next start" in fresh.hostler("up", "-d", HOSTLER_API_KEY="another key of any form, 24+").stderr
    fresh.must("down")
    fresh.up(HOSTLER_API_KEY="another key of any form, 24+")
    assert fresh.key == "another key of any form, 24+"
    for key, status in ((fresh.key, 200), ("a key of any form, 24+ ch.", 401)):
        assert plain_http.get(f"{fresh.url}/api/v1/pools", headers={"X-API-Key": key}).status_code == status
    fresh.must("down")
    # the one before ended, and asking for it does not cost the one that holds
    refused(fresh, "HOSTLER_API_KEY", "ended", HOSTLER_API_KEY="a key of any form, 24+ ch.")
    assert fresh.key == "another key of any form, 24+"


def test_a_part_that_does_not_start_is_named_with_its_log(fresh: Stack) -> None:
    prepared(fresh)
    (fresh.layout.postgres_data / "global" / "pg_control").rename(fresh.state_dir / "pg_control")
    said = refused(fresh, "postgres did not start", "pg_control")
    assert str(fresh.layout.logs / "postgres.log") in said


def test_two_ups_at_once_make_one_stack(fresh: Stack) -> None:
    arguments = ("up", "-d", "--port", str(fresh.port))
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: fresh.hostler(*arguments), range(2)))
    assert [one.returncode for one in done] == [0, 0]
    assert sum("admin key" in one.stdout for one in done) == 1
    assert len(fresh.processes("supervisor")) == 1
    fresh.must("down")


def test_given_parts_are_used_and_nothing_is_embedded(tmp_path: Path, parts: Settings, database_url: str) -> None:
    given = {"HOSTLER_DATABASE_URL": database_url, "HOSTLER_BROKER_URL": parts.broker_url}
    with stack(tmp_path / "state", **given) as made:
        made.up()
        assert not {row["role"] for row in made.processes()} & {"postgres", "redis"}
        assert not made.layout.postgres_data.exists()
        made.replica()
        made.must("doctor")
        made.must("down")
    with stack(tmp_path / "other", HOSTLER_DATABASE_URL="postgresql://nobody:secret-word@127.0.0.1:1/x") as made:
        said = refused(made, "HOSTLER_DATABASE_URL")
        assert "secret-word" not in said
