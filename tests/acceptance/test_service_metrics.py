"""Joined metrics where one replica behaves: the others may hang, break off, or say what is no metric."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import plain_http
from tests.support.stacks import Stack, stack

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]

#: Each replica takes the first role that is left; only of /metrics is anything odd.
SERVER = """
import http.server, os, sys, time

for role in ("good", "hangs", "trickles", "cut", "garbage", "missing"):
    try:
        os.close(os.open(os.path.join(sys.argv[2], role), os.O_CREAT | os.O_EXCL))
        break
    except FileExistsError:
        continue


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path != "/metrics":
            return self.say(b"ok")
        if role == "hangs":
            time.sleep(60)
        if role == "missing":
            return self.say(b"no", 404)
        if role == "garbage":
            return self.say(b"\\xff\\xfe<html>\\n# TYPE good gauge\\n{} 1\\ngood nonsense\\n\\0 1\\n")
        if role == "good":
            return self.say(b"# TYPE good gauge\\ngood{replica=\\"mine\\"} 1\\n")
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        for _ in range(60 if role == "trickles" else 1):
            self.wfile.write(b"good 2\\n")
            time.sleep(1 if role == "trickles" else 0)
        self.close_connection = True

    def say(self, content, status=200):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    top = tmp_path_factory.mktemp("odd")
    (top / "recipes" / "lab").mkdir(parents=True)
    (top / "roles").mkdir(mode=0o777)
    (top / "roles").chmod(0o777)
    (top / "server.py").write_text(SERVER)
    command = f'["{sys.executable}", "{top / "server.py"}", "{{port}}", "{top / "roles"}"]'
    recipe = f"engine: command\ncommand: {command}\nreadiness: {{path: /}}\nreplicas: 6\n"
    (top / "recipes" / "lab" / "odd.yaml").write_text(recipe)
    for folder in (top, top / "recipes", top / "recipes" / "lab"):
        folder.chmod(0o755)
    with stack(top / "state", HOSTLER_RECIPES_DIR=str(top / "recipes")) as started:
        started.up()
        yield started
        started.must("down")


def test_one_that_behaves_is_shown_whatever_the_others_do(up: Stack, tmp_path: Path) -> None:
    service = up.json("service", "create", "lab/odd", "--wait", "--timeout", "60s")
    ids = {one["replica_id"] for one in service["replicas"]}
    assert len(ids) == 6
    headers = {"X-API-Key": up.key}
    url = f"{up.url}/api/v1/services/{service['id']}/metrics"
    # one of them says nothing for a minute, another something each second
    answer = plain_http.get(url, headers=headers, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    told = {sample.labels["replica"]: sample.value for sample in families["hostler_replica_metrics_up"].samples}
    assert set(told) == ids
    # one that answers with no metric at all has answered
    assert sum(told.values()) == 2
    [sample] = families["good"].samples
    assert sample.labels == {"exported_replica": "mine", "replica": sample.labels["replica"], "service": service["id"]}
    up.must("service", "stop", service["id"], "--wait", "--timeout", "60s")
    gone = plain_http.get(url, headers=headers, timeout=30, trust_env=False)
    assert (gone.status_code, gone.json()["code"]) == (409, "conflict")
