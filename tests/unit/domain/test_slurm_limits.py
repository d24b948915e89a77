"""What a request may change of a Slurm pool's options."""

from __future__ import annotations

from app.domain.slurm_limits import refused_options

POOL = {
    "partition": "gpu",
    "account": "p1",
    "extra": ["--mail-type=END"],
    "allow": {
        "partition": ["gpu", "debug"],
        "account": [],
        "extra": ["--nice", "--mail-type"],
        "qos": ["*"],
        "cpus": [8],
    },
}


def test_what_the_pool_says_itself_may_be_said_again() -> None:
    assert refused_options(POOL, {"partition": "gpu", "account": "p1"}, admin=False) == {}


def test_values_outside_the_list_are_refused_by_name() -> None:
    refused = refused_options(POOL, {"partition": "big", "account": "p2", "cpus": 9, "qos": "any"}, admin=False)
    assert set(refused) == {"partition", "account", "cpus"}
    assert "gpu, debug" in refused["partition"]
    assert refused_options(POOL, {"partition": "debug", "cpus": 8}, admin=False) == {}


def test_flags_must_be_allowed_each_by_its_name() -> None:
    assert refused_options(POOL, {"extra": ["--nice=100", "--mail-type=ALL"]}, admin=False) == {}
    assert "--reboot" in refused_options(POOL, {"extra": ["--nice=1", "--reboot"]}, admin=False)["extra"]
    assert "extra" in refused_options({}, {"extra": ["--nice"]}, admin=False), "none is allowed unless it is named"


def test_an_admin_may_say_anything_and_nobody_else_the_list() -> None:
    assert refused_options(POOL, {"partition": "big", "extra": ["--reboot"]}, admin=True) == {}
    assert "allow" in refused_options(POOL, {"allow": {"partition": ["*"]}}, admin=False)
