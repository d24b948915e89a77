"""GGUF files: what counts as a model, and the tiny one."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from app.engines.gguf_files import header_problem, scan_models
from app.engines.tiny_model import write_tiny_gguf


def _header(magic: bytes = b"GGUF", version: int = 3, tensors: int = 5) -> bytes:
    return struct.pack("<4sIQQ", magic, version, tensors, 9)


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (_header(magic=b"PK\3\4"), "does not start with GGUF"),
        (_header(version=1), "version 1"),
        (_header(version=3 << 24), "version"),
        (_header(tensors=0), "no tensors"),
    ],
)
def test_what_cannot_be_a_model_says_why(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    (found,) = scan_models(tmp_path)
    assert problem in found.problem
    assert found.size_bytes == len(content)


def test_every_gguf_file_is_a_model_by_its_stem(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.Q4_K_M.gguf", ".c.gguf", "readme.txt"):
        (tmp_path / name).write_bytes(_header())
    (tmp_path / "d.gguf").mkdir()
    (tmp_path / "e.gguf").symlink_to(tmp_path / "gone")
    found = scan_models(tmp_path)
    assert [model.name for model in found] == ["a.Q4_K_M", "b"]
    assert all(model.problem == "" and model.path.is_absolute() for model in found)


def test_no_folder_has_no_models(tmp_path: Path) -> None:
    assert scan_models(tmp_path / "none") == []


def test_the_tiny_model_is_whole_small_and_the_same_each_time(tmp_path: Path) -> None:
    first, second = (write_tiny_gguf(tmp_path / name) for name in ("one.gguf", "two.gguf"))
    assert first.read_bytes() == second.read_bytes()
    assert write_tiny_gguf(tmp_path / "three.gguf", seed=8).read_bytes() != first.read_bytes()
    assert header_problem(first) == ""
    assert first.stat().st_size < 600_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.gguf", "three.gguf", "two.gguf"]


def test_the_tiny_model_replaces_an_old_file_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"half")
    with path.open("rb") as reader:
        write_tiny_gguf(path)
        assert reader.read() == b"half"
    assert header_problem(path) == ""


def test_the_tiny_model_leaves_nothing_where_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        write_tiny_gguf(tmp_path / "no" / "tiny.gguf")
    assert list(tmp_path.iterdir()) == []


def test_listing_models_imports_neither_numpy_nor_gguf() -> None:
    code = "import sys, app.engines.registry, app.engines.gguf_files, app.engines.tiny_model; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "gguf", "xllamacpp"} & set(loaded)
