"""What of where and how a backend runs a replica comes from its pool, its resources, itself and its key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy import text

from app.engines.registry import ENGINES
from app.errors import Forbidden, HostlerError, InvalidConfig
from app.usecases import keys
from app.usecases.context import Actor, Context
from app.usecases.creates import plan_create, request_create
from tests.support.backends import publish, write_pool
from tests.support.elsewhere import ElsewhereBackend
from tests.support.keys import ADMIN, INSERT_ADMIN
from workers.backends.docker import DockerBackend
from workers.backends.slurm import SlurmBackend


@pytest.fixture
def ctx(ctx: Context) -> Context:
    with ctx.database.begin() as connection:
        connection.execute(text(INSERT_ADMIN))
    publish(ctx, ElsewhereBackend)
    options = {"account": "all", "site": "north", "allow": {"account": ["a", "b"], "extra": ["--nice"]}}
    write_pool(ctx, "cluster", "elsewhere", options)
    return ctx


def key(ctx: Context, role: str = "operate", **options: Any) -> Actor:
    body = {"name": f"key of {role}", "role": role, "backend_options": {"elsewhere": options} if options else {}}
    made = keys.create(ctx, ADMIN, body, None)
    found = keys.authenticate(ctx, made.key or "")
    assert found is not None
    return found


def planned(ctx: Context, who: Actor, own: Mapping[str, Any] | None = None, **body: Any) -> dict[str, Any]:
    config = {"backend_options": dict(own)} if own is not None else {}
    whole = {"server_mode": "replica_mock", "model_name": "m", "pool": "cluster", "replica_config": config, **body}
    found: dict[str, Any] = plan_create(ctx, who, whole)["backend_options"]
    return {name: value for name, value in found.items() if name != "allow"}


def several(nodes: int) -> dict[str, Any]:
    """A create of the only engine that spans hosts."""
    return {
        "server_mode": "platform_workload",
        "platform_config": {"command": ["serve", "{port}"]},
        "resources": {"nodes": nodes, "gpus": 2 * nodes},
    }


def refusal(ctx: Context, who: Actor, own: Mapping[str, Any] | None = None, **body: Any) -> HostlerError:
    with pytest.raises((Forbidden, InvalidConfig)) as refused:
        planned(ctx, who, own, **body)
    return refused.value


def test_a_request_may_ask_for_what_the_pool_allows(ctx: Context) -> None:
    who = key(ctx)
    assert planned(ctx, who) == {"account": "all", "site": "north"}
    assert planned(ctx, who, {"account": "b"})["account"] == "b"
    assert planned(ctx, who, {"account": "all"})["account"] == "all"
    assert planned(ctx, who, {"extra": ["--nice=5"]})["extra"] == ["--nice=5"]
    for own in ({"account": "c"}, {"extra": ["--reboot"]}, {"site": "south"}, {"allow": {}}):
        refused = refusal(ctx, who, own)
        assert (refused.status, list(refused.errors) or own) in (
            (403, [f"replica_config.backend_options.{one}" for one in own]),
            (403, own),
        )
    assert planned(ctx, ADMIN, {"account": "c", "site": "south"}) == {"account": "c", "site": "south"}


def test_what_a_key_fixes_no_request_leaves(ctx: Context) -> None:
    who = key(ctx, account="of-key", cpus=2)
    assert planned(ctx, who) == {"account": "of-key", "cpus": 2, "site": "north"}
    assert planned(ctx, who, {"account": "of-key"})["account"] == "of-key"
    refused = refusal(ctx, who, {"account": "a"})
    assert (refused.status, list(refused.errors)) == (403, ["replica_config.backend_options.account"])
    assert planned(ctx, who, resources={"cpu": 16})["cpus"] == 2
    outcome = request_create(ctx, who, {"server_mode": "replica_mock", "model_name": "m", "pool": "cluster"})
    with ctx.database.read() as connection:
        query = text("SELECT spec->'resolved'->'backend_options' FROM replicas WHERE id = :id")
        assert connection.execute(query, {"id": outcome.replica_id}).scalar()["account"] == "of-key"
    assert planned(ctx, who, pool="mock") == {}


@pytest.mark.parametrize(
    "options, field",
    [
        ({"elsewhere": {"acount": "a"}}, "backend_options.elsewhere.acount"),
        ({"elsewhere": {"account": 7}}, "backend_options.elsewhere.account"),
        ({"no-such": {"account": "a"}}, "backend_options.no-such"),
    ],
)
def test_a_key_takes_only_options_that_there_are(ctx: Context, options: Any, field: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        keys.create(ctx, ADMIN, {"name": "k", "role": "operate", "backend_options": options}, None)
    assert list(refused.value.errors) == [field]


def test_a_key_shows_what_it_fixes(ctx: Context) -> None:
    who = key(ctx, account="of-key")
    assert keys.get(ctx, who.key_id)["backend_options"] == {"elsewhere": {"account": "of-key"}}
    assert keys.get(ctx, ADMIN.key_id)["backend_options"] == {}


def test_resources_become_options_of_a_backend_that_has_such(ctx: Context) -> None:
    resources = {"cpu": 2.5, "memory": "1.5G", "time_limit_s": 90}
    found = planned(ctx, key(ctx), resources=resources)
    assert found == {"account": "all", "site": "north", "cpus": 3, "memory": "1536M", "time_limit": 2}
    assert planned(ctx, key(ctx, "admin"), {"cpus": 8}, resources=resources)["cpus"] == 8
    whole = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "resources": {"cpu": 2}}
    assert plan_create(ctx, ADMIN, whole)["backend_options"] == {}


def test_gpus_are_shared_out_evenly_over_hosts(ctx: Context) -> None:
    assert list(refusal(ctx, ADMIN, resources={"nodes": 2, "gpus": 3}).errors) == ["resources.gpus"]
    assert planned(ctx, ADMIN, **several(2))["site"] == "north"


def test_an_engine_whose_parts_cannot_bind_the_leaders_address_has_one_host(ctx: Context) -> None:
    refused = refusal(ctx, ADMIN, resources={"nodes": 2, "gpus": 4})
    assert (refused.status, list(refused.errors)) == (422, ["resources.nodes"])
    assert "engine mock" in refused.detail
    assert planned(ctx, ADMIN, resources={"nodes": 1, "gpus": 4})["site"] == "north"
    assert {name for name, engine in ENGINES.items() if engine.spans_hosts} == {"command"}


@pytest.mark.parametrize("nodes", [0, -1, 1025, "2", 1.5, True])
def test_a_number_of_hosts_is_one(ctx: Context, nodes: Any) -> None:
    assert list(refusal(ctx, ADMIN, resources={"nodes": nodes}).errors) == ["resources.nodes"]


@pytest.mark.parametrize("pool", ["local", "mock", "single"])
def test_several_hosts_only_where_the_backend_can(ctx: Context, pool: str) -> None:
    write_pool(ctx, "single", "elsewhere", {})
    with ctx.database.begin() as connection:
        connection.execute(text("UPDATE backends SET lacks = '{spans_hosts}' WHERE name IN ('elsewhere', 'mock')"))
    refused = refusal(ctx, ADMIN, pool=pool, **several(2))
    assert (refused.status, list(refused.errors)) == (422, ["resources.nodes"])
    assert planned(ctx, ADMIN, pool=pool, resources={"nodes": 1}) == {}


def test_a_size_of_memory_is_one(ctx: Context) -> None:
    assert list(refusal(ctx, ADMIN, resources={"memory": "much"}).errors) == ["resources.memory"]


@pytest.mark.parametrize("pool", ["local", "mock", "cluster"])
@pytest.mark.parametrize(
    "name, wish", [("cpu", "abc"), ("cpu", 1e300), ("memory", "0"), ("time_limit_s", "x"), ("time_limit_s", -5)]
)
def test_no_amount_is_refused_on_every_pool(ctx: Context, pool: str, name: str, wish: Any) -> None:
    refused = refusal(ctx, ADMIN, pool=pool, resources={name: wish})
    assert (refused.status, list(refused.errors)) == (422, [f"resources.{name}"])


def test_an_amount_that_the_backend_does_not_take_is_named_as_it_was_asked_for(ctx: Context) -> None:
    schema = ElsewhereBackend.options_schema
    least = {**schema, "properties": {**schema["properties"], "memory_bytes": {"type": "integer", "minimum": 4096}}}
    with ctx.database.begin() as connection:
        query = text("UPDATE backends SET options_schema = CAST(:schema AS jsonb) WHERE name = 'elsewhere'")
        connection.execute(query, {"schema": json.dumps(least)})
    assert list(refusal(ctx, ADMIN, resources={"memory": "1"}).errors) == ["resources.memory"]


def test_an_address_that_is_learned_is_a_placeholder_in_the_plan(ctx: Context) -> None:
    plan = plan_create(ctx, ADMIN, {"server_mode": "replica_mock", "model_name": "m", "pool": "cluster"})
    assert plan["placement"]["port"] == "found where it runs"


def test_mounts_of_a_request_are_checked_by_field_before_any_host_is_asked(ctx: Context) -> None:
    publish(ctx, DockerBackend)
    options = {"allowed_mounts": [{"source": "/srv"}], "mounts": [{"source": "/srv/venv", "target": "/venv"}]}
    write_pool(ctx, "boxes", "docker", options)
    operator = key(ctx)
    own = {"mounts": [*options["mounts"], {"source": "/srv/models"}]}
    assert planned(ctx, operator, own, pool="boxes")["mounts"] == own["mounts"]
    field = "replica_config.backend_options.mounts"
    for wrong, refused, name in (
        ({"source": "/srv/x", "target": "/tmp/zz,source=/etc"}, InvalidConfig, f"{field}.0.target"),
        ({"source": "/etc"}, Forbidden, f"{field}.0"),
        ({"source": "/srv/x", "target": "/venv"}, Forbidden, f"{field}.0"),
    ):
        error = refusal(ctx, operator, {"mounts": [wrong]}, pool="boxes")
        assert (type(error), list(error.errors)) == (refused, [name])


@pytest.fixture
def slurm(ctx: Context) -> Context:
    """With a pool ``slurm`` on this host's own cluster, and one ``images`` that runs commands by Apptainer."""
    publish(ctx, SlurmBackend)
    own = {"partition": "cpu", "extra": ["--switches=1"], "allow": {"extra": ["--hint"]}}
    write_pool(ctx, "slurm", "slurm", own)
    apptainer = {"image": "/srv/default.sif", "nv": True, "binds": ["/srv/models"]}
    write_pool(ctx, "images", "slurm", {"apptainer": apptainer})
    return ctx


def test_options_that_do_not_go_together_name_who_said_so(slurm: Context) -> None:
    refused = refusal(slurm, ADMIN, {"tunnel": True}, pool="slurm")
    assert (refused.status, list(refused.errors)) == (422, ["replica_config.backend_options.tunnel"])
    told = refused.errors["replica_config.backend_options.tunnel"][0]
    assert "does not go together with the pool's options" in told
    assert "ssh: Must be set. It is: The host on which commands are given" in told
    assert planned(slurm, ADMIN, {"tunnel": True, "ssh": {"host": "login"}}, pool="slurm")["tunnel"] is True
    write_pool(slurm, "far", "elsewhere", {})
    body = {"name": "a", "role": "operate", "backend_options": {"slurm": {"tunnel": True}}}
    made = keys.create(slurm, ADMIN, body, None)
    who = keys.authenticate(slurm, made.key or "")
    assert who is not None
    refused = refusal(slurm, who, pool="slurm")
    assert (refused.status, list(refused.errors)) == (422, ["pool"])
    assert "hostler pool get slurm" in refused.errors["pool"][0]


def test_a_requests_flags_are_added_to_the_pools(slurm: Context) -> None:
    who = key(slurm)
    assert planned(slurm, who, {"extra": ["--hint=nomultithread"]}, pool="slurm")["extra"] == [
        "--switches=1", "--hint=nomultithread"
    ]  # fmt: skip
    assert planned(slurm, who, {"extra": []}, pool="slurm")["extra"] == ["--switches=1"]
    assert planned(slurm, who, {"extra": ["--switches=1"]}, pool="slurm")["extra"] == ["--switches=1"]
    assert refusal(slurm, who, {"extra": ["--switches=9"]}, pool="slurm").status == 403
    assert planned(slurm, ADMIN, {"extra": ["--switches=9"]}, pool="slurm")["extra"] == ["--switches=9"]


@pytest.mark.parametrize(
    "image, run",
    [
        ("vllm/vllm-openai:v1", "docker://vllm/vllm-openai:v1"),
        ("/srv/images/x.sif", "/srv/images/x.sif"),
        ("oras://registry/x:1", "oras://registry/x:1"),
        ("--writable", "docker://--writable"),
    ],
)
def test_a_recipes_image_is_run_by_apptainer_where_the_pool_does(slurm: Context, image: str, run: str) -> None:
    who = key(slurm)
    asked = {"server_mode": "replica_mock", "model_name": "m", "run": {"engine": "mock", "image": image}}
    plan = plan_create(slurm, who, {**asked, "pool": "images"})
    assert plan["backend_options"]["apptainer"] == {"image": run, "nv": True, "binds": ["/srv/models"]}
    script = " ".join(plan["script"].split())
    quoted = run if run != "docker://--writable" else "docker://--writable"
    assert "apptainer exec \\ --nv \\ --bind /srv/models " + quoted in script
    # no image is gained where the pool runs none
    plan = plan_create(slurm, who, {**asked, "pool": "slurm"})
    assert "apptainer" not in plan["backend_options"]
    assert image not in plan["script"]
    own = {"backend_options": {"apptainer": {"image": image}}}
    refused = refusal(slurm, who, own["backend_options"], pool="images")
    assert list(refused.errors) == ["replica_config.backend_options.apptainer"]


HOSTILE: list[Any] = [
    None, True, -1, 1e400, 10**40, "", "\x00", "a\nb", "\u2028", "\ud800", "x" * 100_000, [], [[]], {}, {"": {}},
    {"a": "\x00"}, ["\x00"], [None], "--x", "$(id)", "`id`", "\u0663", "../..", {"host": "\x00"}, {"host": ["x"]},
    {"host": "-oProxyCommand=x"},
]  # fmt: skip


@pytest.mark.parametrize("option", [*SlurmBackend.options_schema["properties"], "nonesuch", "", "\x00", "\u2028"])
def test_no_value_of_an_option_is_our_own_fault(slurm: Context, option: str) -> None:
    for value in HOSTILE:
        told = told_of(slurm, {option: value})
        if told is not None:
            assert told.status in (400, 403, 422), (option, value, told)
            assert told.errors, (option, value, told)
            assert all(name.startswith("replica_config.backend_options") for name in told.errors), (value, told.errors)


def told_of(ctx: Context, own: Mapping[str, Any]) -> HostlerError | None:
    """What is wrong with these options."""
    try:
        planned(ctx, ADMIN, own, pool="slurm")
    except HostlerError as error:
        return error
    return None
