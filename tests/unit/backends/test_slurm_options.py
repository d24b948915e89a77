"""What the options of the Slurm backend take, and that what runs on other hosts is of their Python."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from workers.backends import slurm_job, slurm_seal, slurm_seats, slurm_share, slurm_there
from workers.backends.slurm_options import OPTIONS_SCHEMA


def takes(**options: Any) -> bool:
    return Draft202012Validator(OPTIONS_SCHEMA).is_valid(options)


@pytest.mark.parametrize("flag", ["--mail-type=END", "--no-kill", "--mem-per-cpu=4G", "--wait-all-nodes=1", "--hint=x"])
def test_flags_of_sbatch_are_taken(flag: str) -> None:
    assert takes(extra=[flag])


@pytest.mark.parametrize(
    "flag",
    [
        "--uid=0", "--ui=0", "--export=ALL", "--exp=ALL", "--job-name=x", "--comment=x", "--com=x", "--output=/etc/x",
        "--o=/etc/x", "--nodes=9", "--n=9", "--wrap=id", "--array=1-9", "-p gpu", "--", "nice",
        "--nice=1\n#SBATCH --uid=0", "--Nice=1",
    ],
)  # fmt: skip
def test_flags_that_say_who_what_or_where_we_write_are_not(flag: str) -> None:
    """Also cut off, for sbatch completes what is unambiguous."""
    assert not takes(extra=[flag])


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "dependency", "nodelist", "begin"])
def test_a_value_is_one_line_and_no_flag(name: str) -> None:
    assert takes(**{name: "gpu,debug"})
    for bad in ("a\n#SBATCH --uid=0", "--uid=0", "", "a\0b", "é"):
        assert not takes(**{name: bad})


def test_a_folder_is_one_that_sbatch_can_write_output_to() -> None:
    assert takes(folder="/scratch/a b/per%cent/q'u\"o")
    assert not takes(folder="/scratch/back\\slash"), "tried: the job ends before it begins"


@pytest.mark.parametrize("name", ["nodelist", "exclude"])
def test_nodes_are_read_from_no_file(name: str) -> None:
    """What holds a slash is the name of a file to sbatch, and the worker may read more than who asks."""
    assert takes(**{name: "n[1-3],m07"})
    for file in ("/etc/passwd", "n1,/etc/passwd", "./nodes"):
        assert not takes(**{name: file})


@pytest.mark.parametrize(
    "name", ["account", "time_limit", "memory", "qos", "begin", "licenses", "gpu_type", "folder", "python"]
)
def test_the_end_of_a_line_ends_no_value(name: str) -> None:
    good = {"time_limit": "90", "memory": "64G", "folder": "/a", "python": "python3"}.get(name, "a")
    assert takes(**{name: good})
    assert not takes(**{name: f"{good}\n"})
    assert not takes(extra=["--nice=1\n"])
    assert not takes(setup=["module load cuda\n"])


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "sbatch: error: Batch job submission failed: Connection refused",
        "sbatch: error: slurm_receive_msg [10.0.0.1:6817]: Zero Bytes were transmitted or received",
        "sbatch: error: If munged is up, restart with --num-threads=10\nsbatch: error: Munge encode failed: no socket\n"
        "sbatch: error: Batch job submission failed: Protocol authentication error",
        "sbatch: error: Batch job submission failed: Slurm backup controller in standby mode",
    ],
)
def test_slurms_own_words_for_an_outage_leave_it_open(said: str) -> None:
    assert slurm_there.UNSURE.search(said)


@pytest.mark.parametrize(
    "said",
    [
        "sbatch: error: Invalid --begin specification: munge",
        "sbatch: error: invalid constraint: connection refused",
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Batch job submission failed: Invalid qos specification",
        "sbatch: unrecognized option '--temporarily'",
        'Invalid time specification (pos=0): "standby"',
    ],
)
def test_a_refusal_stays_one_whatever_words_the_request_had(said: str) -> None:
    assert not slurm_there.UNSURE.search(said)


def test_time_limits_are_minutes_or_as_sbatch_has_them() -> None:
    for good in (90, "90", "1:30:00", "2-12", "2-12:00:00", "UNLIMITED"):
        assert takes(time_limit=good), good
    for bad in (0, "1h", "1:2:3:4", -5, "unlimited"):
        assert not takes(time_limit=bad), bad


@pytest.mark.parametrize("module", [slurm_job, slurm_seal, slurm_seats, slurm_share, slurm_there])
def test_what_runs_there_is_python_3_6_and_its_standard_library(module: Any) -> None:
    source = Path(module.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    known = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    known |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name for name in known if not name.startswith("workers.backends.slurm_")} <= {
        "base64", "contextlib", "ctypes", "errno", "fcntl", "hashlib", "json", "os", "re", "select", "shutil", "signal",
        "socket", "struct", "subprocess", "sys", "tempfile", "time", "typing", "zlib",
    }  # fmt: skip
    later = ("removeprefix", "removesuffix", "pidfd_open", "capture_output", "valid_signals", "text=True", "missing_ok")
    assert [word for word in later if word in source] == []
