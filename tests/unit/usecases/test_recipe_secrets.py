"""Secrets by reference: which files may be one, and what is said of those that may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.errors import InvalidConfig
from app.settings import Settings
from app.usecases import recipe_secrets
from app.usecases.recipe_secrets import read_secrets, secret_values


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "secrets-of-recipes"
    folder.mkdir(mode=0o700)
    return Settings.load({}, state_dir=tmp_path / "state", secrets_dir=folder, node_name="host7")


def put(settings: Settings, name: str, value: bytes = b"hf_verysecret\n", mode: int = 0o600) -> Path:
    path = settings.secrets_dir / name
    path.write_bytes(value)
    path.chmod(mode)
    return path


def refused(settings: Settings, file: str) -> str:
    with pytest.raises(InvalidConfig) as caught:
        read_secrets(settings, {"HF_TOKEN": {"file": file}})
    assert "verysecret" not in caught.value.detail
    assert "HF_TOKEN" in caught.value.detail
    assert "host7" in caught.value.detail
    return caught.value.detail


def test_a_secret_is_the_files_text_without_its_line_end(settings: Settings) -> None:
    put(settings, "hf-token")
    assert read_secrets(settings, {"HF_TOKEN": {"file": "hf-token"}}) == {"HF_TOKEN": "hf_verysecret"}
    put(settings, "two", b"a\nb\r\n")
    assert read_secrets(settings, {"X": {"file": "two"}}) == {"X": "a\nb"}


def test_a_missing_one(settings: Settings) -> None:
    assert "there is no such file" in refused(settings, "hf-token")
    assert read_secrets(settings, {"HF_TOKEN": {"file": "hf-token", "optional": True}}) == {}


@pytest.mark.parametrize("file", ["../secrets/admin-key", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "x\n"])
def test_no_name_leaves_the_folder(settings: Settings, file: str) -> None:
    assert "bare file name" in refused(settings, file)


def test_what_cannot_be_one(settings: Settings, tmp_path: Path) -> None:
    put(settings, "open", mode=0o644)
    assert "chmod 600" in refused(settings, "open")
    put(settings, "empty", b"\n")
    put(settings, "nul", b"a\0b")
    put(settings, "large", b"x" * 40_000)
    put(settings, "latin", b"\xff")
    (tmp_path / "outside").write_text("verysecret")
    (tmp_path / "outside").chmod(0o600)
    (settings.secrets_dir / "link").symlink_to(tmp_path / "outside")
    (settings.secrets_dir / "folder").mkdir(mode=0o700)
    os.mkfifo(settings.secrets_dir / "pipe", 0o600)
    for name, why in (
        ("empty", "empty"),
        ("nul", "NUL"),
        ("large", "32 KiB"),
        ("latin", "no UTF-8"),
        ("link", "leads out"),
        ("folder", "no file"),
        ("pipe", "no file"),
    ):
        assert why in refused(settings, name)
    settings.secrets_dir.chmod(0o777)
    put(settings, "good")
    assert "others may write the folder" in refused(settings, "good")


def test_the_stacks_own_secrets_are_none(tmp_path: Path) -> None:
    own = tmp_path / "state" / "secrets"
    own.mkdir(parents=True, mode=0o700)
    settings = Settings.load({}, state_dir=tmp_path / "state", secrets_dir=own, node_name="host7")
    put(settings, "admin-key")
    assert "the stack's own secrets" in refused(settings, "admin-key")


def test_values_for_the_masks_of_logs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_secrets, "_LOOK_S", -1.0)
    assert secret_values(settings) == ()
    put(settings, "one", b"short\nlong-enough\n")
    path = put(settings, "two", b"longer-than-that")
    put(settings, "open", b"open-to-others", mode=0o644)
    (settings.secrets_dir / "link").symlink_to("/etc/hostname")
    assert secret_values(settings) == ("longer-than-that", "open-to-others", "long-enough")
    path.write_bytes(b"another-of-16-by")
    assert "another-of-16-by" in secret_values(settings)
    path.unlink()
    assert secret_values(settings) == ("open-to-others", "long-enough")
