"""A far host for each test that breaks it, and one for all that do not."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sshd import Sshd, running_sshd
from workers.transports.options import open_transport
from workers.transports.ssh import SshTransport


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with _ShortFolder() as run_dir, running_sshd(tmp_path_factory.mktemp("far"), run_dir) as server:
        yield server


@pytest.fixture
def own_host(tmp_path: Path) -> Iterator[Sshd]:
    """For tests that stop, freeze or fill it."""
    with _ShortFolder() as run_dir, running_sshd(tmp_path / "far", run_dir) as server:
        yield server


@pytest.fixture
def transport(host: Sshd) -> SshTransport:
    return to(host)


def to(host: Sshd, name: str = "") -> SshTransport:
    transport = open_transport(host.to(name or host.name), host.run_dir)
    assert isinstance(transport, SshTransport)
    return transport


class _ShortFolder:
    """A private folder whose path is short enough for sockets, removed afterwards."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp(prefix="hs"))
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
