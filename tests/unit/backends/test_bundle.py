"""What is sent to a host behind SSH: complete, the same each time, and able to say that a Python is too old."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from workers.backends.bundle import BROKEN_OFF, INSTALL, OLDEST_PYTHON, make_bundle

HELLO = {"verb": "hello", "arguments": {}, "timeout_s": 5, "backend": "ssh", "log_bytes": 4096}


def install(folder: Path, data: bytes, python: str = sys.executable) -> subprocess.CompletedProcess[bytes]:
    bundle = make_bundle()
    argv = [python, "-I", "-S", "-c", INSTALL, str(folder), bundle.name, bundle.sum]
    return subprocess.run(argv, input=data, capture_output=True, check=False)


def test_it_is_the_same_each_time_and_named_by_its_content() -> None:
    bundle = make_bundle()
    make_bundle.cache_clear()
    assert make_bundle() == bundle
    assert hashlib.sha256(bundle.data).hexdigest() == bundle.sum
    assert bundle.sum.startswith(bundle.name.removeprefix("code-"))


def test_it_runs_with_nothing_but_itself_and_every_verb_of_it_is_there(tmp_path: Path) -> None:
    assert install(tmp_path / "far", make_bundle().data).returncode == 0
    code = tmp_path / "far" / make_bundle().name
    asked = [HELLO, {**HELLO, "verb": "fingerprint"}, {**HELLO, "verb": "list_marked", "arguments": {"prefix": "x"}}]
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(code), str(tmp_path / "far")],
        input=b"".join(json.dumps(question).encode() + b"\n" for question in asked),
        capture_output=True,
        check=True,
        cwd="/",
        env={},
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["result"] for answer in answers][::2] == [None, []]
    assert answers[1]["result"]["healthy"]
    assert done.stderr == b""


def test_half_of_it_is_never_used(tmp_path: Path) -> None:
    data = make_bundle().data
    for size in (0, 1, len(data) // 2, len(data) - 1):
        assert install(tmp_path / "far", data[:size]).returncode == BROKEN_OFF
        assert not (tmp_path / "far").exists()
    assert install(tmp_path / "far", data + b"x").returncode == BROKEN_OFF
    assert install(tmp_path / "far", data).returncode == 0
    assert install(tmp_path / "far", data).returncode == 0, "a second time changes nothing"
    assert [path.name for path in (tmp_path / "far").iterdir()] == [make_bundle().name]


def test_what_decides_about_a_python_can_be_read_by_an_old_one() -> None:
    with zipfile.ZipFile(io.BytesIO(make_bundle().data)) as bundle:
        main = bundle.read("__main__.py").decode()
    for source in (main, INSTALL):
        ast.parse(source, feature_version=(3, 4))


@pytest.mark.parametrize("version", [(3, 6, 8), (3, 10, 12)])
def test_an_old_python_says_what_it_is_and_leaves_nothing(tmp_path: Path, version: tuple[int, ...]) -> None:
    done = install(tmp_path / "far", make_bundle().data, old_python(tmp_path, version))
    assert (done.returncode, done.stdout) == (0, b"%d.%d" % version[:2])
    assert version < OLDEST_PYTHON
    assert not (tmp_path / "far").exists()


def old_python(folder: Path, version: tuple[int, ...]) -> str:
    """This Python, which says that it is another one."""
    program = folder / f"python{version[1]}"
    program.write_text(
        f"#!{sys.executable} -IS\n"
        "import sys\n"
        f"sys.version_info = {version}\n"
        "code = sys.argv[4]\n"
        "sys.argv = ['-c', *sys.argv[5:]]\n"
        "exec(code)\n"
    )
    program.chmod(0o755)
    return str(program)
