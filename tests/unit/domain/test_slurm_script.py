"""The script of a job: read by people, by sbatch and by bash."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.domain.slurm_script import KEY_NOT_SHOWN, Job, NoDirective, render_script


def job(**more: Any) -> Job:
    fields: dict[str, Any] = {
        "name": "hostler-x-abc-1", "replica_id": "abc", "attempt": 1, "nonce": "f00d",
        "folder": "/shared/h/hostler-x-abc-1", "argv": ["llama-server", "--port", "@HOSTLER_PORT@"],
    }  # fmt: skip
    return Job(**fields | more)


def directives(script: str) -> dict[str, str]:
    found = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            (word,) = shlex.split(line.removeprefix("#SBATCH "))
            name, _, value = word.partition("=")
            assert name not in found
            found[name] = value
    return found


def test_it_says_what_the_job_is_and_carries_our_mark() -> None:
    said = directives(render_script(job(gpus=4, nodes=2), {"partition": "gpu", "time_limit": 90, "gpu_type": "a100"}))
    assert said["--job-name"] == "hostler-x-abc-1"
    assert said["--comment"] == "hostler:hostler-x-abc-1:f00d"
    assert said["--export"] == "NONE"
    assert said["--partition"] == "gpu"
    assert said["--time"] == "90"
    assert said["--gres"] == "gpu:a100:2"
    assert said["--nodes"] == "2"


def test_options_of_sbatch_are_all_there() -> None:
    options = {
        "account": "p200", "qos": "short", "constraint": "a100&ib", "reservation": "r1", "dependency": "afterany:5",
        "exclude": "n[1-3]", "nodelist": "n4", "licenses": "matlab:2", "cpus": 8, "memory": "64G", "nice": 5,
        "begin": "now+1hour", "exclusive": True, "requeue": False, "gres": "gpu:h100:4,shard:1",
        "extra": ["--mail-type=END", "--no-kill"],
    }  # fmt: skip
    said = directives(render_script(job(gpus=1), options))
    wanted = {
        "--account": "p200", "--qos": "short", "--constraint": "a100&ib", "--reservation": "r1",
        "--dependency": "afterany:5", "--exclude": "n[1-3]", "--nodelist": "n4", "--licenses": "matlab:2",
        "--cpus-per-task": "8", "--mem": "64G", "--nice": "5", "--begin": "now+1hour", "--exclusive": "",
        "--no-requeue": "", "--gres": "gpu:h100:4,shard:1", "--mail-type": "END", "--no-kill": "",
    }  # fmt: skip
    assert wanted.items() <= said.items()


@pytest.mark.parametrize(
    "nasty", ["$(touch pwned)", "`id`", "a'b\"c", "x\ny", "#SBATCH --uid=0", "; rm -rf /", "\\", "é ✓", "END", ""]
)
def test_values_reach_the_program_as_they_are(nasty: str, tmp_path: Path) -> None:
    (tmp_path / "py").write_text('#!/bin/sh\nshift 5\nprintf "%s\\0" "$@"\n')
    (tmp_path / "py").chmod(0o700)
    script = render_script(
        job(folder=str(tmp_path), argv=["prog", nasty, "--opt", nasty]), {"python": str(tmp_path / "py")}, "the key"
    )
    done = subprocess.run(["bash"], input=script.encode(), capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == ["prog", nasty, "--opt", nasty]
    assert not (tmp_path / "pwned").exists()


def test_no_value_can_become_a_directive() -> None:
    script = render_script(job(argv=["prog", "a\n#SBATCH --uid=0\nb"]), {"setup": ["module load cuda"]})
    before = script[: script.index("\ncd -- ")]
    assert "--uid" not in before, "sbatch reads directives up to the first command"
    assert script.index("module load cuda") < script.index("exec ")


@pytest.mark.parametrize("options", [{"account": "a\n"}, {"memory": "1G\r"}, {"extra": ["--x=\u2028y"]}])
def test_a_value_that_could_end_its_line_is_refused_whoever_let_it_pass(options: Any) -> None:
    with pytest.raises(NoDirective):
        render_script(job(), options)


def test_the_key_stands_only_in_what_is_submitted() -> None:
    assert KEY_NOT_SHOWN in render_script(job(), {})
    assert render_script(job(), {}, "0123").count("0123") == 1


def test_a_percent_sign_in_the_folder_is_no_pattern() -> None:
    assert directives(render_script(job(folder="/a%j b"), {}))["--output"] == "/a%%j b/slurm.out"


def test_a_container_runs_the_same_command() -> None:
    wish = {"image": "/images/vllm.sif", "nv": True, "binds": ["/data:/data"]}
    script = render_script(job(argv=["vllm", "serve"]), {"apptainer": wish})
    words = shlex.split(script[script.index("exec ") :].replace("\\\n", " ").split("<<")[0])
    assert words[words.index("--") + 1 :] == [
        "apptainer", "exec", "--nv", "--bind", "/data:/data", "/images/vllm.sif", "vllm", "serve",
    ]  # fmt: skip


def test_slurms_commands_are_found_on_the_node_too() -> None:
    """Our program asks there why Slurm ends a job, and starts the parts on further nodes."""
    lines = render_script(job(), {"commands": "/opt/slurm 23/bin", "setup": ["module load cuda"]}).splitlines()
    at = lines.index("export PATH='/opt/slurm 23/bin':\"$PATH\"")
    assert lines[at + 1] == "module load cuda"
    assert not any("PATH" in line for line in render_script(job(), {}).splitlines())
