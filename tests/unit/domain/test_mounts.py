"""What a request may have mounted, as far as paths alone tell."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.mounts import refused_mounts

POOL: dict[str, Any] = {
    "mounts": [{"source": "/srv/venv", "target": "/venv"}, {"source": "/srv/models"}],
    "path_map": {"/installed": "/srv/engine"},
}
ALLOWED = [{"source": "/srv"}, {"source": "/scratch", "read_only": False}]


def refused(mount: dict[str, Any], *, admin: bool = False) -> str:
    return refused_mounts([mount], POOL, {}, ALLOWED, admin=admin).get("mounts.0", "")


@pytest.mark.parametrize("mount", [*POOL["mounts"], {"source": "/srv/models/a"}, {"source": "/scratch"}])
def test_what_is_allowed_and_covers_nothing(mount: dict[str, Any]) -> None:
    assert refused(mount) == ""


@pytest.mark.parametrize(
    "mount, words",
    [
        ({"source": "/etc"}, "below no folder"),
        ({"source": "/srvx"}, "below no folder"),
        ({"source": "/srv/models", "read_only": False}, "only for reading"),
    ],
)
def test_what_is_not_allowed_is_refused_to_everybody(mount: dict[str, Any], words: str) -> None:
    assert words in refused(mount)
    assert words in refused(mount, admin=True)


@pytest.mark.parametrize(
    "target, words",
    [
        ("/venv", "the pool mounts"),
        ("/venv/bin", "the pool mounts"),
        ("/srv", "the pool mounts"),
        ("/srv/engine/bin", "path_map"),
        ("/usr/local", "own programs"),
        ("/app", "own programs"),
    ],
)
def test_what_covers_the_pools_own_is_an_admins(target: str, words: str) -> None:
    mount = {"source": "/scratch/x", "target": target, "read_only": False}
    assert words in refused(mount)
    assert refused(mount, admin=True) == ""
