"""The capability registry as its users meet it: curl, `hostler register` and the client, on a whole stack."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from hostler import Client
from hostler.errors import NoMatchingServer, ServerFailed
from tests.integration.cli.stub import Answer, Stub, serve
from tests.support import plain_http
from tests.support.embedded import wait_until
from tests.support.stacks import Stack, stack
from tests.support.v2 import V2Server, v2_server
from tests.support.venvs import NotInstalled

pytestmark = pytest.mark.timeout(240)
#: Far less than the lease, after which anything would be gone.
AT_ONCE_S = 5


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("s") / "s") as made:
        made.up()
        yield made


@pytest.fixture
def curl(up: Stack, tmp_path: Path) -> Callable[[str], str]:
    """Runs a command as somebody types it from the document; the port and the key are this stack's."""
    header = tmp_path / "key"
    header.write_text(f"X-API-Key: {up.key}\n")

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", _ours(command, up, header)], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout

    return run


@pytest.fixture
def register_by_curl(up: Stack, tmp_path: Path) -> Callable[[str], Any]:
    """The document's first terminal: a command that holds its connection until Ctrl-C."""
    header = tmp_path / "key"

    @contextmanager
    def terminal(command: str) -> Iterator[Path]:
        said = tmp_path / f"terminal-{len(list(tmp_path.iterdir()))}"
        with open(said, "wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {_ours(command, up, header)}"],
                stdout=out,
                # a shell that runs the tests in the background has them ignore it, and those they start
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            wait_until(lambda: "registered" in said.read_text(), 15, f"a registration by {command}")
            yield said
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(10)

    return terminal


def _ours(command: str, up: Stack, header: Path) -> str:
    return command.replace("localhost:8080", f"localhost:{up.port}").replace("curl", f"curl -sS -H @{header}", 1)


QWEN = (
    'curl -N -X POST http://localhost:8080/register -H "Content-Type: application/json" -d'
    ' \'{"replica_id":"r1","endpoint":"localhost:50051","capabilities":[{"model":"qwen2"}]}\''
)
TWO_CAPABILITIES = (
    'curl -N -X POST http://localhost:8080/register -H "Content-Type: application/json" -d \'{"replica_id":"r1",'
    '"endpoint":"localhost:50051","capabilities":[{"model":"qwen2"},{"model":"llama","type":"chat"}]}\''
)
CHAT = (
    'curl -N -X POST http://localhost:8080/register -H "Content-Type: application/json" -d'
    ' \'{"replica_id":"a","endpoint":"localhost:50051","capabilities":[{"type":"chat"}]}\''
)
EMBED = (
    'curl -N -X POST http://localhost:8080/register -H "Content-Type: application/json" -d'
    ' \'{"replica_id":"b","endpoint":"localhost:50052","capabilities":[{"type":"embed"}]}\''
)


def test_the_first_steps(curl: Callable[[str], str], register_by_curl: Callable[[str], Any]) -> None:
    found = {"endpoint": "localhost:50051", "replica_id": "r1"}
    with register_by_curl(QWEN) as said:
        assert json.loads(curl("curl http://localhost:8080/route?model=qwen2")) == found
        assert json.loads(curl("curl http://localhost:8080/registry"))["replicas"] == [
            {**found, "capabilities": [{"model": "qwen2"}]}
        ]
        wait_until(lambda: said.read_text().count("alive") >= 2, 20, "two signs of life")
        first, *alive = said.read_text().strip().split("\n\n")
        assert first == 'data: {"status": "registered", "replica_id": "r1"}'
        assert set(alive) == {'data: {"status": "alive"}'}

    def gone() -> bool:
        return bool(json.loads(curl("curl http://localhost:8080/route?model=qwen2")).get("detail"))

    wait_until(gone, AT_ONCE_S, "the end of the registration")
    said_now = json.loads(curl("curl http://localhost:8080/route?model=qwen2"))
    assert said_now["detail"] == "no matching replica"
    assert curl("curl -o /dev/null -w '%{http_code}' http://localhost:8080/route?model=qwen2") == "404"


def test_conditions(curl: Callable[[str], str], register_by_curl: Callable[[str], Any]) -> None:
    found = {"endpoint": "localhost:50051", "replica_id": "r1"}
    with register_by_curl(TWO_CAPABILITIES):
        assert json.loads(curl('curl "http://localhost:8080/route?model=qwen2"')) == found
        assert json.loads(curl('curl "http://localhost:8080/route?model=llama&type=chat"')) == found
        # both must stand in one capability
        for query in ("model=qwen2&type=chat", "model=qwen3", "model=qwen2&gpu=1"):
            assert json.loads(curl(f'curl "http://localhost:8080/route?{query}"'))["detail"] == "no matching replica"


def test_several_servers(curl: Callable[[str], str], register_by_curl: Callable[[str], Any]) -> None:
    with register_by_curl(CHAT), register_by_curl(EMBED):
        assert json.loads(curl('curl "http://localhost:8080/route?type=chat"'))["endpoint"] == "localhost:50051"
        assert json.loads(curl('curl "http://localhost:8080/route?type=embed"'))["endpoint"] == "localhost:50052"
        listed = json.loads(curl("curl http://localhost:8080/registry"))["replicas"]
        assert [row["replica_id"] for row in listed] == ["a", "b"]
    assert json.loads(curl("curl http://localhost:8080/health"))["status"]


class Registrar:
    """``hostler register`` as it runs beside a server."""

    def __init__(self, up: Stack, folder: Path, endpoint: str, *arguments: str, **environ: str) -> None:
        self.err = folder / f"{len(list(folder.iterdir()))}.err"
        with open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                up.argv("register", "--endpoint", endpoint, *arguments),
                env=up.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=err,
                text=True,
            )

    def registered(self) -> str:
        """Its id, once it is."""
        assert self.process.stdout is not None
        replica_id = self.process.stdout.readline().strip()
        assert replica_id, self.err.read_text()
        return replica_id

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(15)


@pytest.fixture
def registrar(up: Stack, tmp_path: Path) -> Iterator[Callable[..., Registrar]]:
    started: list[Registrar] = []
    folder = tmp_path / "registrars"
    folder.mkdir()

    def start(endpoint: str, *arguments: str, **environ: str) -> Registrar:
        started.append(Registrar(up, folder, endpoint, *arguments, **environ))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()
    wait_until(lambda: not up.call("GET", "/registry")["replicas"], 60, "an empty registry")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_registration_ends_with_its_command(
    up: Stack, registrar: Callable[..., Registrar], number: signal.Signals
) -> None:
    one = registrar("localhost:50051", "--capability", "model=qwen2,gpus=2", "--capability", "type=chat")
    replica_id = one.registered()
    (row,) = up.call("GET", "/registry")["replicas"]
    assert row["replica_id"] == replica_id
    assert row["capabilities"] == [{"model": "qwen2", "gpus": 2}, {"type": "chat"}]
    assert up.call("GET", "/route?gpus=2")["replica_id"] == replica_id
    assert one.end(number) == 0
    wait_until(lambda: not up.call("GET", "/registry")["replicas"], AT_ONCE_S, "the end of the registration")
    assert "the registration has ended" in one.err.read_text()
    assert "Traceback" not in one.err.read_text()


def test_an_api_that_is_killed_forgets_nobody(up: Stack, registrar: Callable[..., Registrar]) -> None:
    one = registrar("localhost:50051", "--capability", "model=qwen2", "--replica-id", "r1")
    one.registered()
    for process in up.processes("web"):
        # its workers go with it, as its sockets do
        os.kill(process["pid"], signal.SIGKILL)
    seen = set()

    def back() -> bool:
        # a gateway without an API says 502 or 503; what it must never say is that the server is unknown
        answer = up.call("GET", "/route?model=qwen2", expect=(200, 502, 503))
        seen.add(answer.get("code", "found"))
        return one.err.read_text().count("registered as r1") == 2

    wait_until(back, 60, "the registrar to be back")
    assert up.call("GET", "/route?model=qwen2")["replica_id"] == "r1"
    assert "not registered: " in one.err.read_text()
    assert one.process.poll() is None
    assert one.end() == 0


def test_a_database_that_hangs_keeps_nobody_from_finding_a_server(
    up: Stack, registrar: Callable[..., Registrar]
) -> None:
    one = registrar("localhost:50051", "--capability", "model=qwen2", "--replica-id", "r1")
    one.registered()
    found = {"endpoint": "localhost:50051", "replica_id": "r1"}
    assert up.call("GET", "/route?model=qwen2") == found
    server = psutil.Process(up.processes("postgres")[0]["pid"])
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        process.suspend()
    try:
        for _ in range(20):
            assert up.call("GET", "/route?model=qwen2") == found
            assert up.call("GET", "/route?model=qwen3", expect=404)["detail"] == "no matching replica"
            assert up.call("GET", "/registry")["replicas"][0]["replica_id"] == "r1"
    finally:
        for process in frozen:
            process.resume()
    assert one.end() == 0


def test_what_an_operator_takes_out_does_not_come_back(up: Stack, registrar: Callable[..., Registrar]) -> None:
    one = registrar("localhost:50051", "--capability", "model=qwen2", "--replica-id", "team/qwen")
    one.registered()
    assert "team/qwen" in up.must("registration", "list")
    assert "localhost:50051" in up.must("registration", "get", "team/qwen")
    assert up.must("registration", "delete", "team/qwen") == "team/qwen\n"
    assert one.process.wait(15) == 5
    assert "it was removed" in one.err.read_text()
    assert up.hostler("registration", "list").stdout == ""
    assert "team/qwen" in up.must("registration", "list", "--ended")


def test_who_comes_later_has_the_id(up: Stack, registrar: Callable[..., Registrar]) -> None:
    first = registrar("localhost:50051", "--capability", "model=qwen2", "--replica-id", "r1")
    first.registered()
    second = registrar("localhost:50052", "--capability", "model=qwen2", "--replica-id", "r1")
    second.registered()
    # they do not take it from each other for ever
    assert first.process.wait(15) == 5
    assert up.call("GET", "/route?model=qwen2") == {"endpoint": "localhost:50052", "replica_id": "r1"}
    assert second.end() == 0


@pytest.mark.parametrize(
    "endpoint, exit_code, words",
    [
        ("192.0.2.1:80", 4, "HOSTLER_REGISTER_ALLOW"),
        ("169.254.169.254:80", 4, "next: "),
        ("localhost:{port}", 4, "Hostler's own"),
        ("localhost", 2, "HOST:PORT"),
    ],
)
def test_what_may_not_be_registered(up: Stack, endpoint: str, exit_code: int, words: str) -> None:
    done = up.hostler("register", "--endpoint", endpoint.format(port=up.port), "--capability", "model=qwen2")
    assert done.returncode == exit_code
    assert words in done.stderr
    assert done.stdout == ""


def test_the_role_of_the_key_decides(up: Stack) -> None:
    # without the state dir, whose key is an admin's
    words = ["register", "--endpoint", "localhost:50051", "--capability", "model=qwen2"]
    command = [*up.argv(*words)[:-2]]

    def environ(role: str) -> dict[str, str]:
        key = up.call("POST", "/api/v1/keys", {"name": role, "role": role}, 201)["key"]
        return up.environ | {"HOSTLER_URL": up.url, "HOSTLER_API_KEY": key}

    refused = subprocess.run(command, env=environ("infer"), capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 4
    assert "--role register" in refused.stderr
    with subprocess.Popen(command, env=environ("register"), stdout=subprocess.PIPE, text=True) as allowed:
        assert allowed.stdout is not None
        replica_id = allowed.stdout.readline().strip()
        assert up.call("GET", "/route?model=qwen2")["replica_id"] == replica_id
        allowed.terminate()
        assert allowed.wait(15) == 0
    wait_until(lambda: not up.call("GET", "/registry")["replicas"], AT_ONCE_S, "the end of the registration")


def test_a_registered_server_of_the_openai_api_is_a_route_like_others(
    up: Stack, registrar: Callable[..., Registrar]
) -> None:
    asked = {"model": "theirs", "messages": [{"role": "user", "content": "Hello"}]}
    with serve(Stub()) as server:
        server.on("GET", "/health", Answer(body={}))
        server.on("GET", "/v1/models", Answer(body={"data": [{"id": "theirs"}]}))
        server.on("POST", "/v1/chat/completions", Answer(body={"choices": []}))
        one = registrar(server.url.removeprefix("http://"), "--capability", "model=theirs", "--replica-id", "team/b:1")
        one.registered()

        def answer() -> httpx2.Response:
            return plain_http.post(
                f"{up.url}/v1/chat/completions", json=asked, headers={"X-API-Key": up.key}, timeout=30, trust_env=False
            )

        wait_until(lambda: answer().status_code == 200, 30, "a route to the registered server")
        assert answer().json() == {"choices": []}
        # in the words of its owner, as the registry has it
        assert answer().headers["X-Hostler-Replica"] == "team/b:1"
        (got, *_) = server.calls("POST", "/v1/chat/completions")
        assert got.body == asked
        # it is nobody's business there who asked, and with which key
        assert not {name for name in got.headers if name.startswith("x-hostler-")}
        assert not {"x-api-key", "authorization", "cookie"} & set(got.headers)
        assert one.end() == 0
        wait_until(lambda: answer().status_code == 404, AT_ONCE_S, "the end of the route")


@pytest.fixture
def chat(tmp_path: Path) -> Iterator[Callable[[], V2Server]]:
    with ExitStack() as servers:
        count = iter(range(10))

        def start() -> V2Server:
            try:
                return servers.enter_context(v2_server(tmp_path / f"server-{next(count)}", "chat"))
            except NotInstalled as error:
                pytest.skip(str(error))

        yield start


def test_the_client_finds_a_server_and_the_next(
    up: Stack, registrar: Callable[..., Registrar], chat: Callable[[], V2Server]
) -> None:
    first, second = chat(), chat()
    beside_first = registrar(first.grpc, "--capability", "type=chat")
    replica_id = beside_first.registered()
    client = Client(api_server=up.url, key=up.key, capability={"type": "chat"})
    assert client.infer(model_name="chat", inputs={"prompt": ["Hello, world!"]}) == {"prompt": ["Hello, world!"]}
    assert (client.endpoint, client.replica_id) == (first.grpc, replica_id)

    beside_second = registrar(second.http, "--capability", "type=chat")
    second_id = beside_second.registered()
    first.kill()
    # as a host dies: whoever registered it goes with it, without a word
    beside_first.process.kill()
    beside_first.process.wait()
    wait_until(lambda: len(up.call("GET", "/registry")["replicas"]) == 1, AT_ONCE_S, "the end of the first")
    assert client.infer("chat", {"prompt": ["again"]}) == {"prompt": ["again"]}
    assert (client.endpoint, client.replica_id) == (second.http, second_id)

    beside_second.end()
    second.kill()
    with pytest.raises(ServerFailed, match="no registered server can do type=chat"):
        client.infer("chat", {"prompt": ["nobody"]})
    with pytest.raises(NoMatchingServer):
        client.infer("chat", {"prompt": ["nobody"]})
    client.close()
