from __future__ import annotations

import os
from pathlib import Path

import pytest
from supervisor.options import ServerOptions

from app.settings import Settings
from app.stack.environment import supervised_environment
from app.stack.roles import ROLES
from app.stack.runas import Account
from app.stack.supervisor_config import config_text, write_config

ME = Account("me", os.geteuid(), os.getegid(), "/home/me")


@pytest.mark.parametrize("name", ["s", "100% ;odd #name 'q\" $HOME %(here)s"])
def test_supervisor_reads_it_wherever_the_state_dir_lies(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load({}, state_dir=tmp_path / name, database_url="postgresql://u:secret-word@h/d")
    (settings.state_dir / "logs").mkdir(parents=True)
    for key, value in supervised_environment(settings, ME, {"PATH": "/bin"}).items():
        monkeypatch.setenv(key, value)
    path = write_config(settings, ME)
    assert path.stat().st_mode & 0o777 == 0o600
    assert "secret-word" not in path.read_text()
    monkeypatch.chdir(settings.state_dir)
    options = ServerOptions()
    options.realize(["-n", "-c", str(path)])
    programs = {one.name: one for group in options.process_group_configs for one in group.process_configs}
    assert set(programs) == {"listener", "redis", *(role.name for role in ROLES)}
    for role in ROLES:
        assert programs[role.name].stopasgroup is False
        assert programs[role.name].killasgroup is False
        assert programs[role.name].stdout_logfile == f"logs/{role.name}.log"
    run = options.server_configs[0]["file"]
    assert run.endswith("/supervisor.sock")
    assert len(options.server_configs) == 1


def test_given_parts_are_not_started(tmp_path: Path) -> None:
    settings = Settings.load({}, state_dir=tmp_path, database_url="postgresql://h/d", broker_url="amqp://b")
    text = config_text(settings)
    assert "[program:postgres]" not in text
    assert "[program:redis]" not in text
