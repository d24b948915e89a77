"""The gateway document's requests as they are written, by curl: services, groups, vLLM, recipes, metrics.

Those to a vector database are in ``test_vector_db.py``.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.standins import VLLM
from tests.standins.hub import hub
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack

REQUESTS = Path(__file__).parents[1] / "support" / "slurm_gateway_requests.sh"
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the requests are curl's, and there is none"),
]


@dataclass
class Answered:
    """What curl got."""

    status: int
    body: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Document:
    """Runs the document's requests: host, port and key come from curl's own settings, and the ids from ``ids``."""

    up: Stack
    home: Path
    ids: dict[str, str]

    def run(self, command: str) -> Answered:
        command = command.replace("\\\n", " ")
        for placeholder, found in self.ids.items():
            command = command.replace(placeholder, found)
        done = subprocess.run(
            shlex.split(command),
            env={**self.up.environ, "CURL_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        head, _, body = done.stdout.partition("\n\n")
        lines = head.split("\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        return Answered(int(lines[0].split()[1]), body, headers)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with hub() as models:
        given = {"HOSTLER_VLLM_COMMAND": VLLM, "HOSTLER_NODE_GPUS": "24", "HF_ENDPOINT": models.endpoint}
        with stack(tmp_path_factory.mktemp("gateway") / "state", **given) as started:
            started.up()
            yield started
            started.must("down")


@pytest.fixture(scope="module")
def document(up: Stack, tmp_path_factory: pytest.TempPathFactory) -> Document:
    home = tmp_path_factory.mktemp("curl")
    settings = [
        "silent",
        "include",
        'noproxy = "*"',
        f'header = "X-API-Key: {up.key}"',
        f'connect-to = "localhost:8001:127.0.0.1:{up.port}"',
    ]
    (home / ".curlrc").write_text("\n".join(settings) + "\n")
    return Document(up, home, {})


def requests() -> list[str]:
    text = REQUESTS.read_text()
    return [one.strip() for one in re.findall(r"^curl .*?(?=^curl |\Z)", text, re.MULTILINE | re.DOTALL)]


def kind_of(command: str) -> tuple[str, str]:
    """(method, path) of a request."""
    method = re.search(r"-X (\w+)", command)
    path = re.search(r"http://localhost:8001/api/v1(/[^\s\"?]*)", command)
    assert path
    return method[1] if method else "GET", path[1]


def asked_config(command: str) -> dict[str, Any]:
    body = re.search(r"-d '(.*)'", command, re.DOTALL)
    assert body
    found: dict[str, Any] = json.loads(body[1])
    return found


def test_every_request(document: Document, up: Stack) -> None:
    found = requests()
    creates = [command for command in found if kind_of(command) == ("POST", "/services")]
    assert len(creates) == 7
    made = [_created(document, command) for command in creates]
    for one in made:
        up.must("service", "wait", one["id"], "--timeout", "60s")
    single, group, halved, gpt2 = made[:4]
    document.ids |= {"GROUP_ID": group["id"], "SERVICE_ID": single["id"], "VLLM_ID": gpt2["id"]}
    _await_routed(document, gpt2["id"])
    for command in found:
        if command not in creates:
            method, path = kind_of(command)
            answered = document.run(command)
            assert answered.status == 200, (command, answered.body)
            LOOKED_AT[method, path](answered, document)
    assert len({kind_of(command) for command in found}) == len(LOOKED_AT) + 1
    shown = up.call("GET", f"/api/v1/services/{halved['id']}")
    assert (shown["count"], shown["ready"]) == (2, 2)
    for one in made:
        up.must("service", "stop", one["id"], "--wait", "--timeout", "60s")


def _created(document: Document, command: str) -> dict[str, Any]:
    answered = document.run(command)
    assert answered.status == 202, answered.body
    body: dict[str, Any] = answered.json
    asked = asked_config(command)
    config = asked.get("config", {})
    assert body["id"] == body["service_id"]
    assert body["recipe_name"] == asked["recipe_name"]
    assert body["status"] in ("pending", "configuring", "running")
    assert answered.headers["location"] == f"/api/v1/services/{body['id']}"
    count = 1 if asked["recipe_name"] == "inference/vllm-single-node" else 4 // config.get("gpu_per_replica", 1)
    assert body["count"] == count
    assert body["group_id"] == (body["id"] if count > 1 else None)
    assert body["model_name"] == config.get("environment", {}).get("VLLM_MODEL", QWEN)
    wishes = {"VLLM_HOST", "VLLM_PORT", "CUDA_VISIBLE_DEVICES"} & set(config.get("environment", {}))
    assert {warning.split()[0].rstrip(":") for warning in body["warnings"]} == wishes
    return body


def _await_routed(document: Document, service_id: str) -> None:
    """The gateway's agent hears of a new replica a moment after its task has ended."""

    def routed() -> bool:
        routes = document.up.call("GET", "/api/v1/routes?kind=service")["routes"]
        return any(service_id in json.dumps(route) and route["replicas"] for route in routes)

    wait_until(routed, 30, "the route of the service")


def _listed(answered: Answered, document: Document) -> None:
    groups = {one["group_id"]: one for one in answered.json["service_groups"]}
    assert groups[document.ids["GROUP_ID"]]["total_replicas"] == 4


def _group(answered: Answered, document: Document) -> None:
    body = answered.json
    assert body["group_id"] == document.ids["GROUP_ID"]
    assert (body["healthy_replicas"], body["total_replicas"], body["overall_status"]) == (4, 4, "healthy")
    assert len({one["port"] for one in body["replicas"]}) == 4
    gpus = [gpu for one in body["replicas"] for gpu in one["gpus"]]
    assert len(set(gpus)) == len(gpus) == 4


def _group_status(answered: Answered, _document: Document) -> None:
    body = answered.json
    assert (body["overall_status"], body["healthy_replicas"], body["total_replicas"]) == ("healthy", 4, 4)
    assert {one["status"] for one in body["replica_statuses"]} == {"running"}
    assert all(one["base_url"] for one in body["replica_statuses"])


def _group_stopped(answered: Answered, document: Document) -> None:
    group_id = document.ids["GROUP_ID"]
    body = answered.json
    assert {name: body[name] for name in ("success", "message", "group_id", "replicas_updated")} == {
        "success": True,
        "message": f"Service group {group_id} status updated to cancelled",
        "group_id": group_id,
        "replicas_updated": 4,
    }
    assert body["task_id"]


def _retired(answered: Answered, _document: Document) -> None:
    assert answered.json["success"] is True
    assert answered.headers["deprecation"]
    assert answered.headers["sunset"]


def _services(answered: Answered, document: Document) -> None:
    assert {document.ids["SERVICE_ID"], document.ids["VLLM_ID"]} <= {one["id"] for one in answered.json["services"]}


def _service(answered: Answered, document: Document) -> None:
    assert (answered.json["id"], answered.json["status"]) == (document.ids["SERVICE_ID"], "running")


def _service_status(answered: Answered, _document: Document) -> None:
    assert (answered.json["status"], answered.json["healthy_replicas"]) == ("running", 1)


def _logs(answered: Answered, document: Document) -> None:
    [replica] = document.up.call("GET", f"/api/v1/services/{document.ids['SERVICE_ID']}")["replicas"]
    lines = answered.body.splitlines()
    assert lines
    assert all(line.startswith(f"{replica['replica_id']} | ") for line in lines)


def _stopped(answered: Answered, document: Document) -> None:
    assert (answered.json["success"], answered.json["service_id"]) == (True, document.ids["SERVICE_ID"])


def _available(answered: Answered, _document: Document) -> None:
    assert answered.json["supported_architectures"]


def _searched(answered: Answered, _document: Document) -> None:
    names = [one["id"] for one in answered.json["models"]]
    assert QWEN in names
    assert len(names) <= 10


def _described(answered: Answered, _document: Document) -> None:
    assert answered.json["id"] == "Qwen/Qwen2.5-7B-Instruct"


def _vllm_services(answered: Answered, document: Document) -> None:
    assert document.ids["VLLM_ID"] in {one["id"] for one in answered.json["services"]}


def _vllm_models(answered: Answered, _document: Document) -> None:
    assert "gpt2" in json.dumps(answered.json)


def _prompted(answered: Answered, document: Document) -> None:
    body = answered.json
    assert body["success"] is True
    assert body["text"]
    assert re.fullmatch(r"[0-9a-f]+:[0-9]+", body["routed_to"])
    assert body["total_replicas"] == 1
    assert body["usage"]["completion_tokens"] > 0
    assert document.ids["VLLM_ID"] in (body["group_id"], body["service_id"])


def _recipes(answered: Answered, _document: Document) -> None:
    assert {"inference/vllm-single-node", "inference/vllm-replicas"} <= {
        one["path"] for one in answered.json["recipes"]
    }


def _recipe(answered: Answered, _document: Document) -> None:
    assert answered.json["name"] == "vllm-single-node"


def _metrics(answered: Answered, document: Document) -> None:
    assert answered.headers["content-type"].startswith("text/plain")
    samples = [sample for family in text_string_to_metric_families(answered.body) for sample in family.samples]
    assert {sample.labels["service"] for sample in samples} == {document.ids["VLLM_ID"]}
    assert any(sample.name.startswith("vllm:") for sample in samples)


LOOKED_AT: dict[tuple[str, str], Callable[[Answered, Document], None]] = {
    ("GET", "/vllm/available-models"): _available,
    ("GET", "/vllm/search-models"): _searched,
    ("GET", "/vllm/model-info/Qwen/Qwen2.5-7B-Instruct"): _described,
    ("GET", "/service-groups"): _listed,
    ("GET", "/service-groups/GROUP_ID"): _group,
    ("GET", "/service-groups/GROUP_ID/status"): _group_status,
    ("POST", "/service-groups/GROUP_ID/status"): _group_stopped,
    ("DELETE", "/service-groups/GROUP_ID"): _retired,
    ("GET", "/services"): _services,
    ("GET", "/services/SERVICE_ID"): _service,
    ("GET", "/services/SERVICE_ID/status"): _service_status,
    ("GET", "/services/SERVICE_ID/logs"): _logs,
    ("POST", "/services/SERVICE_ID/status"): _stopped,
    ("DELETE", "/services/SERVICE_ID"): _retired,
    ("GET", "/vllm/services"): _vllm_services,
    ("GET", "/vllm/VLLM_ID/models"): _vllm_models,
    ("POST", "/vllm/VLLM_ID/prompt"): _prompted,
    ("GET", "/recipes"): _recipes,
    ("GET", "/recipes/vllm-single-node"): _recipe,
    ("GET", "/vllm/VLLM_ID/metrics"): _metrics,
}
