from __future__ import annotations

import os
from pathlib import Path

from app.settings import Settings
from app.stack.environment import settings_environment, supervised_environment
from app.stack.runas import INSTALL_ROOT, Account

ME = Account("me", os.geteuid(), os.getegid(), "/home/me")
OTHER = Account("other", os.geteuid() + 1, 1, "/var/lib/other")


def test_settings_come_back_as_they_were(tmp_path: Path) -> None:
    settings = Settings.load(
        {}, state_dir=tmp_path / "100% ;odd", ports=(30000, 30010), task_events=False, look_s=1.5, host="::1",
        database_url="postgresql://u:p%40@h/d", models_dir=tmp_path / "m",
    )  # fmt: skip
    assert Settings.load(settings_environment(settings)) == settings


def test_children_get_no_admin_key_and_nothing_that_changes_code(tmp_path: Path) -> None:
    settings = Settings.load({}, state_dir=tmp_path, api_key="k" * 40)
    base = {
        "PATH": "/bin", "HF_HOME": "/hf", "PYTHONPATH": "/evil", "PYTHONSTARTUP": "x", "GUNICORN_CMD_ARGS": "--reload",
        "PGHOST": "elsewhere", "PGSERVICE": "x", "HOSTLER_API_KEY": "k" * 40, "HOSTLER_PORT": "1", "HOSTLER_MARK": "m",
    }  # fmt: skip
    environ = supervised_environment(settings, ME, base)
    assert "k" * 40 not in environ.values()
    assert not {"PYTHONSTARTUP", "GUNICORN_CMD_ARGS", "PGHOST", "PGSERVICE", "HOSTLER_MARK"} & set(environ)
    assert environ["PYTHONPATH"] == str(INSTALL_ROOT)
    assert environ["PYTHONSAFEPATH"] == "1"
    assert environ["HF_HOME"] == "/hf"
    assert "HOSTLER_PORT" not in environ, "the settings decide, not what was in the caller's environment"


def test_libpq_variables_reach_a_database_of_ones_own(tmp_path: Path) -> None:
    settings = Settings.load({}, state_dir=tmp_path, database_url="postgresql://h/d")
    assert supervised_environment(settings, ME, {"PGPASSFILE": "/p"})["PGPASSFILE"] == "/p"


def test_another_user_gets_his_own_home(tmp_path: Path) -> None:
    settings = Settings.load({}, state_dir=tmp_path)
    environ = supervised_environment(settings, OTHER, {"HOME": "/root", "XDG_RUNTIME_DIR": "/run/user/0"})
    assert (environ["HOME"], environ["USER"]) == ("/var/lib/other", "other")
    assert "XDG_RUNTIME_DIR" not in environ
