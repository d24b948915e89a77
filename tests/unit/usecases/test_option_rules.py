"""Options that cannot be right are refused when a pool is made, with the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.usecases.option_rules import broken_rules
from workers.backends.docker_options import OPTIONS_SCHEMA as DOCKER
from workers.backends.process import ProcessBackend
from workers.backends.slurm_options import OPTIONS_SCHEMA as SLURM
from workers.backends.ssh import SshBackend

SSH = SshBackend.options_schema
HOST = {"host": "far"}


@pytest.mark.parametrize(
    "schema, options, field",
    [
        (SLURM, {"allow": {"nosuch": ["a"]}}, "allow"),
        (SLURM, {"allow": {"folder": ["/a"]}}, "allow"),
        (SLURM, {"ports": [30000, 20000]}, "ports"),
        (SLURM, {"network": "999.1.1.1/24"}, "network"),
        (SLURM, {"tunnel": True}, "ssh"),
        (SLURM, {"account": "a\n"}, "account"),
        (SLURM, {"path": "/bin\n"}, "path"),
        (SLURM, {"setup": ["a\nb"]}, "setup.0"),
        (SLURM, {"slurm_conf": "/etc/x\u2028"}, "slurm_conf"),
        (SLURM, {"apptainer": {"image": "/a\n"}}, "apptainer.image"),
        (SLURM, {"path_map": {"/a": "/b\n"}}, "path_map./a"),
        (SSH, {}, "ssh"),
        (SSH, {"ssh": HOST, "ports": [2, 1]}, "ports"),
        (SSH, {"ssh": HOST, "address": "999.1.1.1"}, "address"),
        (SSH, {"ssh": {"host": "far", "config": "/a\n"}}, "ssh.config"),
        (DOCKER, {"image": "a\n"}, "image"),
        (DOCKER, {"network": "n\n"}, "network"),
        (DOCKER, {"mounts": [{"source": "/a\n"}]}, "mounts.0.source"),
        (ProcessBackend.options_schema, {"path": "/bin\n"}, "path"),
    ],
)
def test_what_cannot_be_right_is_named(schema: Mapping[str, Any], options: Mapping[str, Any], field: str) -> None:
    assert {".".join(path) for path, _ in broken_rules(schema, options)} == {field}


@pytest.mark.parametrize(
    "schema, options",
    [
        (SLURM, {"allow": {"account": ["a"], "extra": ["--nice"]}, "ports": [20000, 20000], "network": "10.0.0.7/8"}),
        (SLURM, {"tunnel": True, "ssh": HOST}),
        (SLURM, {"tunnel": False}),
        (SLURM, {"setup": ["\tmodule load cuda"]}),
        (SSH, {"ssh": HOST, "address": "fe80::1"}),
        (DOCKER, {"mounts": [{"source": "/a"}]}),
    ],
)
def test_what_can_be_is_taken(schema: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    assert list(broken_rules(schema, options)) == []


def test_a_part_need_not_be_whole() -> None:
    assert list(broken_rules(SSH, {"log_bytes": 4096}, partly=True)) == []
    assert list(broken_rules(SLURM, {"tunnel": True}, partly=True)) == []


@pytest.mark.parametrize(
    "schema, options, field, words",
    [
        (SLURM, {"partion": "gpu"}, "partion", "There is no such option. Did you mean partition?"),
        (SSH, {"ssh": HOST, "zzz": 1}, "zzz", "There is no such option. There are: ssh, folder, python"),
        (SSH, {}, "ssh", "Must be set. It is: The host on which commands are given"),
        (SSH, {"ssh": {}}, "ssh.host", "Must be set. It is: Destination as ssh takes it"),
        (SSH, {"ssh": "gpu1"}, "ssh", "'gpu1' is not an object. It is: The host"),
        (SSH, {"ssh": {"host": "-x"}}, "ssh.host", "'-x' is nothing that it takes. It is: Destination as ssh takes it"),
        (SLURM, {"time_limit": "1:2:3:4"}, "time_limit", "is nothing that it takes. It is: Longest run: minutes"),
        (SLURM, {"extra": ["--uid=0"]}, "extra.0", "none of those that Hostler itself sets"),
        (SLURM, {"squeue": "xml"}, "squeue", "'xml' is not one of: json, fixed."),
        (DOCKER, {"mounts": "/srv"}, "mounts", "'/srv' is not a list. It is: What of the host is mounted"),
    ],
)
def test_what_is_wrong_is_told_in_words(
    schema: Mapping[str, Any], options: Mapping[str, Any], field: str, words: str
) -> None:
    ((path, told),) = broken_rules(schema, options)
    assert ".".join(path) == field
    assert words in told
