"""What the OpenAPI document promises is what the API does: made-up requests to every route, real ids among them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import create_app
from app.api.gateway_routes import SERVED_BY
from app.domain.lifecycle import STATE_MEANING, State
from app.settings import Settings
from app.usecases import keys
from tests.support.embedded import fresh_database
from tests.support.public_door import public_door


def no_defect(_context: Any, response: Any, _case: Any) -> None:
    """501 to 504 say what others cannot do now, where the document says so (the next check); 500 is never right."""
    assert response.status_code < 500 or 501 <= response.status_code <= 504, response.status_code


#: Every part of "no 500 and no undocumented answer".
CHECKS = [
    no_defect,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Requests per route; the nightly run sets more. A create that waits takes two seconds.
EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "25"))


@pytest.fixture(scope="module")
def web(parts: Settings, migrated: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    models_dir = tmp_path_factory.mktemp("models")
    # some routes show what this host's HAProxy holds
    with fresh_database(parts, migrated) as url, public_door() as door:
        chosen = replace(
            parts,
            state_dir=door.layout.state_dir,
            database_url=url,
            namespace=f"o{secrets.token_hex(4)}",
            models_dir=Path(models_dir),
            max_wait_s=2.0,
            # nobody is there, and says so at once
            hf_endpoint="http://127.0.0.1:9",
        )
        app = create_app(chosen)
        yield app
        app.extensions["hostler"].close()


@pytest.fixture(scope="module")
def key(web: Flask) -> str:
    made = f"schemathesis-{secrets.token_hex(16)}"
    keys.ensure_admin_key(web.extensions["hostler"].settings, made)
    return made


@pytest.fixture(scope="module")
def known(web: Flask, key: str) -> dict[str, str]:
    """Ids and names that exist, so that not everything is a 404."""
    client, headers = web.test_client(), {"X-API-Key": key}
    create = {"server_mode": "replica_mock", "model_name": "m", "pool": "mock", "wait_for_ready": False}
    replica = client.post("/api/v1/replicas", json=create, headers=headers).get_json()
    client.post("/api/v1/pools", json={"name": "fuzz", "backend": "mock", "slots": 3}, headers=headers)
    client.post("/api/v1/models", json={"name": "fuzz", "engine": "mock"}, headers=headers)
    made = client.post("/api/v1/keys", json={"name": "fuzz", "role": "read"}, headers=headers).get_json()
    run = {"recipe_name": "inference/mock", "pool": "mock", "name": "fuzz", "replicas": 2}
    service = client.post("/api/v1/services", json=run, headers=headers).get_json()
    return {
        "replica_id": replica["replica_id"],
        "task_id": replica["task_id"],
        "name": "fuzz",
        "key_id": made["id"],
        "service_id": service["id"],
    }


@pytest.fixture(scope="module")
def api(web: Flask) -> Any:
    return schemathesis.openapi.from_wsgi("/openapi.json", web)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_500_and_nothing_undocumented(api: Any, key: str, known: dict[str, str], subtests: pytest.Subtests) -> None:
    for found in api.get_all_operations():
        operation = found.ok()
        if SERVED_BY in operation.definition.raw:
            # it never comes here: tests/integration/gateway has its answers
            continue
        for mode in GenerationMode:
            with subtests.test(operation.label, mode=mode.value):
                _try_out(operation, mode, key, known)


def _try_out(operation: Any, mode: GenerationMode, key: str, known: dict[str, str]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case) -> None:
        _use_what_exists(case, known)
        case.call_and_validate(headers={"X-API-Key": key}, checks=CHECKS)

    try:
        send()
    except Unsatisfiable:
        # a route without parameters has no wrong requests
        assert mode is GenerationMode.NEGATIVE


def _use_what_exists(case: schemathesis.Case, known: dict[str, str]) -> None:
    """Every other request goes to something that is there; streams are left out, they have no end."""
    sent = repr(case.path_parameters) + repr(case.body) + repr(case.query)
    if len(sent) % 2 and isinstance(case.path_parameters, dict):
        case.path_parameters = {name: known.get(name, value) for name, value in case.path_parameters.items()}
    if isinstance(case.query, dict) and "follow" in case.query:
        case.query = {**case.query, "follow": "false"}
    if case.operation.label == "GET /api/v1/tasks/{task_id}/events":
        case.headers = {**(case.headers or {}), "Accept": "application/json"}
    if case.operation.label == "POST /api/v1/replicas" and isinstance(case.body, dict) and len(sent) % 2:
        case.body = {**case.body, "pool": "mock", "server_mode": "replica_mock"}
        case.body.pop("placement", None)
    if case.operation.label == "POST /api/v1/services" and isinstance(case.body, dict) and len(sent) % 2:
        case.body = {**case.body, "recipe_name": "inference/mock", "pool": "mock", "replicas": 2}


def test_the_document_is_openapi_3_1_with_every_route(web: Flask) -> None:
    document = web.test_client().get("/openapi.json").get_json()
    assert document["openapi"].startswith("3.1")
    # the gateway's own never come here
    documented = {(method.upper(), path) for method, path, one in operations_of(document) if SERVED_BY not in one}
    served = set()
    for rule in web.url_map.iter_rules():
        if rule.rule == "/docs/<name>":
            continue
        path = rule.rule
        for argument in rule.arguments:
            converter = next(part for part in path.split("<") if part.split(">")[0].endswith(argument)).split(">")[0]
            path = path.replace(f"<{converter}>", f"{{{argument}}}")
        served |= {(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert documented == served
    names = [operation["operationId"] for _, _, operation in operations_of(document)]
    assert len(names) == len(set(names))


def test_the_lifecycle_in_the_document_is_the_table(web: Flask) -> None:
    document = web.test_client().get("/openapi.json").get_json()
    assert document["components"]["schemas"]["Replica"]["properties"]["status"]["enum"] == [str(one) for one in State]
    assert document["x-lifecycle"] == {str(state): meaning for state, meaning in STATE_MEANING.items()}


def test_errors_are_documented_as_problems(web: Flask) -> None:
    document = web.test_client().get("/openapi.json").get_json()
    for method, path, operation in operations_of(document):
        for status, answer in operation["responses"].items():
            assert status not in ("default", "500"), (method, path)
            if int(status) >= 400:
                name = answer["$ref"].rsplit("/", 1)[1]
                component = document["components"]["responses"][name]
                assert list(component["content"]) == ["application/problem+json"]
        if operation.get("security") != []:
            assert {"400", "401", "403", "422", "503"} <= set(operation["responses"]), (method, path)


def operations_of(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in ("get", "post", "put", "patch", "delete"):
                yield method, path, operation
