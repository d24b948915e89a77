"""How many replicas share a job: by a recipe, unless the pool, the key or the request says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from app.domain.slurm_shared import whole
from app.errors import InvalidConfig
from app.usecases import recipe_replicas, recipes
from app.usecases.context import Context
from app.usecases.creates import plan_create
from tests.support.backends import publish, write_pool
from tests.support.keys import ADMIN
from workers.backends.slurm import SlurmBackend

FOUR = {"gpu_per_replica": 1, "resources": {"gpu": 4}}


@pytest.fixture
def ctx(ctx: Context) -> Context:
    publish(ctx, SlurmBackend)
    make_pool(ctx, "cluster", {})
    return ctx


def make_pool(ctx: Context, name: str, options: Mapping[str, Any]) -> None:
    write_pool(ctx, name, "slurm", options)


def by_recipe(ctx: Context, config: Mapping[str, Any], pool: str = "cluster", **more: Any) -> Mapping[str, Any]:
    body = recipes.render(ctx, ADMIN, "inference/mock", config, pool=pool, **more).body
    options: Mapping[str, Any] = plan_create(ctx, ADMIN, body)["backend_options"]
    return options


def test_a_recipe_that_shares_out_gpus_shares_the_job(ctx: Context) -> None:
    assert by_recipe(ctx, FOUR)["replicas_per_job"] == 4
    assert by_recipe(ctx, FOUR | {"gpu_per_replica": 2})["replicas_per_job"] == 2
    assert by_recipe(ctx, FOUR, replicas=3)["replicas_per_job"] == 3, "no seats for nobody"
    assert by_recipe(ctx, FOUR, replicas=9)["replicas_per_job"] == 4, "those of a node"
    for alone in ({}, FOUR | {"gpu_per_replica": 4}, {"resources": {"gpu": 4}}):
        assert "replicas_per_job" not in by_recipe(ctx, alone)


def test_what_the_recipe_takes_is_what_the_job_takes(ctx: Context) -> None:
    config = {"gpu_per_replica": 1, "resources": {"gpu": 4, "cpu": 8, "memory": "64G"}}
    options = by_recipe(ctx, config)
    assert {name: whole(options)[name] for name in ("cpus", "memory")} == {"cpus": 8, "memory": "65536M"}
    make_pool(ctx, "alone", {"replicas_per_job": 1})
    assert by_recipe(ctx, config, pool="alone")["memory"] == "65536M"


def test_the_pool_and_the_request_say_otherwise(ctx: Context) -> None:
    make_pool(ctx, "alone", {"replicas_per_job": 1})
    assert by_recipe(ctx, FOUR, pool="alone")["replicas_per_job"] == 1
    own = FOUR | {"engine_config": {"backend_options": {"replicas_per_job": 2}}}
    assert by_recipe(ctx, own, pool="alone")["replicas_per_job"] == 2


def test_other_backends_hear_nothing_of_it(ctx: Context) -> None:
    assert "replicas_per_job" not in by_recipe(ctx, FOUR, pool="mock")


def test_one_replica_by_such_a_recipe_is_alone(ctx: Context) -> None:
    body = {"recipe": "inference/mock", "config": FOUR, "pool": "cluster"}
    assert "replicas_per_job" not in recipe_replicas.plan_create(ctx, ADMIN, body)["backend_options"]


def test_the_script_of_a_shared_job_is_shown(ctx: Context) -> None:
    own = {"backend_options": {"replicas_per_job": 4, "cpus": 2, "memory": "1G", "folder": "/f"}}
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": "cluster", "replica_config": own}
    script = plan_create(ctx, ADMIN, body | {"resources": {"gpus": 2}})["script"]
    assert "#SBATCH --cpus-per-task=8\n" in script
    assert "#SBATCH --mem=4G\n" in script
    assert "#SBATCH --gres=gpu:8\n" in script
    assert "cd -- /f/.shared/KEY-NUMBER || exit 1\n" in script
    assert "mock_server" in script.partition("# On its seat of a shared job:\n")[2]


def test_a_replica_on_several_nodes_shares_with_nobody(ctx: Context) -> None:
    make_pool(ctx, "shared", {"replicas_per_job": 2})
    body = {
        "server_mode": "platform_workload", "model_name": "m", "pool": "shared",
        "platform_config": {"command": ["serve", "{port}"]}, "resources": {"nodes": 2, "gpus": 4},
    }  # fmt: skip
    with pytest.raises(InvalidConfig) as refused:
        plan_create(ctx, ADMIN, body)
    assert list(refused.value.errors) == ["resources.nodes"]
    assert "replicas_per_job" in refused.value.detail


@pytest.mark.parametrize("value", [0, 65, "4", 1.5, True, None])
def test_a_number_of_replicas_is_one(ctx: Context, value: Any) -> None:
    own = {"backend_options": {"replicas_per_job": value}}
    body = {"server_mode": "replica_mock", "model_name": "m", "pool": "cluster", "replica_config": own}
    with pytest.raises(InvalidConfig) as refused:
        plan_create(ctx, ADMIN, body)
    assert list(refused.value.errors) == ["replica_config.backend_options.replicas_per_job"]
