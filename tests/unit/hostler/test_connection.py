from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from app.settings import default_state_dir
from hostler.connection import Connection, find_connection, find_models_dir, find_state_dir
from hostler.errors import BadInput, NoKey, Unreachable

OWN = "http://127.0.0.1:8123"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    (folder / "secrets").mkdir(parents=True)
    (folder / "stack.json").write_text(json.dumps({"url": OWN}))
    (folder / "secrets" / "admin-key").write_text("own-key\n")
    return folder


@pytest.fixture
def environ(state_dir: Path) -> dict[str, str]:
    return {"HOSTLER_STATE_DIR": str(state_dir)}


def test_the_state_dir_names_server_and_key(environ: dict[str, str]) -> None:
    assert find_connection(environ=environ) == Connection(OWN, "own-key")


def test_the_environment_goes_before_the_state_dir_it_names(environ: dict[str, str]) -> None:
    environ |= {"HOSTLER_URL": "https://far.example:9/x/", "HOSTLER_API_KEY": "far-key"}
    assert find_connection(environ=environ) == Connection("https://far.example:9/x", "far-key")


def test_arguments_go_before_the_environment(environ: dict[str, str]) -> None:
    environ |= {"HOSTLER_URL": "https://far.example", "HOSTLER_API_KEY": "far-key"}
    assert find_connection("http://near", "k", environ=environ) == Connection("http://near", "k")


def test_a_given_state_dir_goes_before_the_environment(state_dir: Path) -> None:
    environ = {"HOSTLER_URL": "https://far.example", "HOSTLER_API_KEY": "far-key"}
    assert find_connection(state_dir=state_dir, environ=environ) == Connection(OWN, "own-key")


@pytest.mark.parametrize("url", ["http://127.0.0.1:8124", "http://localhost:8123", "https://127.0.0.1:8123"])
def test_the_key_of_a_state_dir_goes_to_its_own_stack_only(environ: dict[str, str], state_dir: Path, url: str) -> None:
    assert find_connection(url, environ=environ).key == ""
    assert find_connection(url, state_dir=state_dir, environ=environ).key == ""
    assert find_connection(OWN + "/", environ=environ).key == "own-key"


def test_without_a_stack_it_is_the_port_of_the_environment(tmp_path: Path) -> None:
    environ = {"HOSTLER_STATE_DIR": str(tmp_path)}
    assert find_connection(environ=environ).url == "http://127.0.0.1:8080"
    assert find_connection(environ=environ | {"HOSTLER_PORT": "8181"}).url == "http://127.0.0.1:8181"
    assert find_connection(environ=environ | {"HOSTLER_PORT": "x", "HOSTLER_URL": OWN}).url == OWN
    for port in ("x", "0", "65536", "0080801", "-1", "²"):
        with pytest.raises(BadInput, match="HOSTLER_PORT"):
            find_connection(environ=environ | {"HOSTLER_PORT": port})


def test_a_given_state_dir_without_a_stack_is_no_reason_to_ask_another(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="no stack was started in"):
        find_connection(state_dir=tmp_path, environ={"HOSTLER_URL": "http://elsewhere"})


def test_nothing_at_all_gives_the_default_address_and_no_key(tmp_path: Path) -> None:
    assert find_connection(environ={"HOME": str(tmp_path)}) == Connection("http://127.0.0.1:8080", "")


@pytest.mark.parametrize("record", ["", "not json", "[]", "{}", '{"url": 7}'])
def test_a_half_written_record_is_no_record(environ: dict[str, str], state_dir: Path, record: str) -> None:
    (state_dir / "stack.json").write_text(record)
    assert find_connection(environ=environ) == Connection("http://127.0.0.1:8080", "")


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:notaport", "http://x:0", "http://u:p@x", "http://["])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BadInput):
        find_connection(url, environ={})


@pytest.mark.parametrize("content", ["", "\n", "two words", "a\nb"])
def test_a_key_file_holds_one_key(tmp_path: Path, content: str) -> None:
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(NoKey):
        find_connection("http://x", key_file=file, environ={})


@pytest.mark.parametrize(
    "url,loopback",
    [("http://127.0.0.1:1", True), ("http://localhost", True), ("http://[::1]:1", True), ("http://10.0.0.1", False)],
)
def test_loopback_is_known_so_that_no_proxy_sees_it(url: str, loopback: bool) -> None:
    assert Connection(url).loopback is loopback


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Connection("http://x", "secret"))


@pytest.mark.parametrize("environ", [{"HOME": "/home/x"}, {"XDG_STATE_HOME": "/s", "HOME": "/home/x"}])
def test_the_default_state_dir_is_the_servers(environ: dict[str, str]) -> None:
    assert find_state_dir(environ) == default_state_dir(environ)


def test_models_lie_in_the_state_dir_unless_told_otherwise() -> None:
    assert find_models_dir(Path("/s"), {}) == Path("/s/models")
    assert find_models_dir(Path("/s"), {"HOSTLER_MODELS_DIR": "m"}) == Path(os.getcwd()) / "m"


def test_our_own_listener_gets_the_key(environ: dict[str, str], state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (state_dir / "stack.json").write_text(json.dumps({"url": url}))
        assert find_connection(environ=environ) == Connection(url, "own-key")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to listen as another user")
def test_another_users_listener_does_not_get_the_key(environ: dict[str, str], state_dir: Path) -> None:
    os.seteuid(65534)
    try:
        server = socket.create_server(("127.0.0.1", 0))
    finally:
        os.seteuid(0)
    with server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        (state_dir / "stack.json").write_text(json.dumps({"url": url}))
        with pytest.raises(Unreachable, match="no key was sent"):
            find_connection(environ=environ)
