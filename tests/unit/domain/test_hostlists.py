"""Names of hosts as Slurm writes them together."""

from __future__ import annotations

import pytest

from app.domain.hostlists import expand_hosts


@pytest.mark.parametrize(
    "listed, hosts",
    [
        ("node1", ["node1"]),
        ("node[01-03,07]", ["node01", "node02", "node03", "node07"]),
        ("node[8-11]", ["node8", "node9", "node10", "node11"]),
        ("node[098-101]", ["node098", "node099", "node100", "node101"]),
        ("a1,b[1-2]c,login", ["a1", "b1c", "b2c", "login"]),
        ("rack[1-2]n[01-02]", ["rack1n01", "rack1n02", "rack2n01", "rack2n02"]),
        ("gpu-[3],gpu-[3-4]", ["gpu-3", "gpu-4"]),
        ("mel[2031,2045].cluster.lan", ["mel2031.cluster.lan", "mel2045.cluster.lan"]),
        ("", []),
        (" node[1-2] ", ["node1", "node2"]),
    ],
)
def test_each_host_is_named_once_in_order(listed: str, hosts: list[str]) -> None:
    assert expand_hosts(listed) == hosts


@pytest.mark.parametrize(
    "listed", ["node[1-2", "node1-2]", "node[a-b]", "node[2-1]", "node[[1-2]]", "n[0-9999999]", "a[0-999]b[0-999]"]
)
def test_what_is_no_list_or_too_long_is_refused(listed: str) -> None:
    with pytest.raises(ValueError, match=r"bracket|range|hosts|number"):
        expand_hosts(listed)
