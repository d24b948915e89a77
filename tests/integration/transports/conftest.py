"""A far host for each test that breaks it, and one for all that do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sshd import Sshd, far_host, running_sshd, short_folder
from workers.transports.options import open_transport
from workers.transports.ssh import SshTransport

__all__ = ["far_host"]


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Sshd]:
    """For tests that stop, freeze or fill it."""
    with short_folder() as run_dir, running_sshd(tmp_path / "far", run_dir) as server:
        yield server


@pytest.fixture
def transport(far_host: Sshd) -> SshTransport:
    return to(far_host)


def to(host: Sshd, name: str = "") -> SshTransport:
    transport = open_transport(host.to(name or host.name), host.run_dir)
    assert isinstance(transport, SshTransport)
    return transport
