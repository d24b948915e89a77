"""Which of the user's own wishes about host keys are heeded."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from workers.transports.master import Master
from workers.transports.options import SshOptions


def settled(tmp_path: Path, *lines: str) -> dict[str, str]:
    """What ssh makes of the words that begin a connection, where the user's configuration has these lines."""
    config = tmp_path / "ssh_config"
    config.write_text("\n".join(lines) + "\n")
    argv = Master(SshOptions("far", str(config)), tmp_path).argv(str(tmp_path / "socket"), 10)
    told = subprocess.run(
        ["ssh", "-G", *argv[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=20
    )
    return dict(line.partition(" ")[::2] for line in told.stdout.splitlines())


@pytest.mark.parametrize("nowhere", ["/dev/null", "none", "/dev/null /dev/null"])
def test_keys_are_remembered_where_the_configuration_throws_them_away(tmp_path: Path, nowhere: str) -> None:
    """Else each key would be a new one, and a host whose key changed would be spoken to."""
    found = settled(
        tmp_path, "StrictHostKeyChecking no", f"UserKnownHostsFile {nowhere}", "NoHostAuthenticationForLocalhost yes"
    )
    assert found["stricthostkeychecking"] == "accept-new"
    assert found["userknownhostsfile"].endswith("/.ssh/known_hosts")
    assert found["nohostauthenticationforlocalhost"] == "no"


def test_the_users_own_file_is_used(tmp_path: Path) -> None:
    found = settled(tmp_path, "StrictHostKeyChecking yes", f"UserKnownHostsFile {tmp_path}/known")
    assert found["stricthostkeychecking"] in ("yes", "true")
    assert found["userknownhostsfile"] == f"{tmp_path}/known"
