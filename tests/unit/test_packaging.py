"""The files that install, run and ship Hostler agree with each other."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import hostler
from app.stack.roles import ROLES

ROOT = Path(__file__).resolve().parents[2]
#: Processes of the Procfile and what the compose file adds.
PARTS = {"postgres", "redis", "migrate"}
#: Processes that look at, or speak to, the engines of the agent's host.
ON_NODE = ("worker", "worker-control", "gateway", "gateway-agent")


def _compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def _services() -> dict[str, dict[str, Any]]:
    return dict(_compose()["services"])


def _procfile() -> dict[str, str]:
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-")


def _locked() -> dict[str, str]:
    found = re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return dict(found)


def test_every_requirement_is_locked_with_hashes() -> None:
    setup = _setup()
    extras = setup["options.extras_require"]
    wanted = "\n".join((setup["options"]["install_requires"], *extras.values())).split("\n")
    assert {_name(line) for line in wanted if line} <= set(_locked())
    blocks = re.split(r"^(?=[a-z])", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE)
    assert all("--hash=sha256:" in block for block in blocks if block.strip() and not block.startswith("#"))


def test_what_is_installed_is_what_is_locked() -> None:
    from importlib.metadata import PackageNotFoundError, version

    different = {}
    for name, wanted in _locked().items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        if found != wanted and name != "async-timeout":  # only for Python before 3.11.3
            different[name] = found
    assert not different, "run `make venv`"


def test_the_version_is_told_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", hostler.__version__)
    assert f"## {hostler.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert _setup()["metadata"]["version"] == "attr: hostler.__version__"


def test_the_image_leaves_out_what_only_tests_need() -> None:
    dev = {_name(line) for line in _setup()["options.extras_require"]["dev"].split("\n") if line}
    uninstalled = re.search(r"pip uninstall --yes (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert uninstalled
    assert set(uninstalled[1].split()) == dev


def test_the_image_runs_tini_first_and_not_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert 'ENTRYPOINT ["tini", "--"]' in final
    assert re.search(r"^USER hostler$", final, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", final, re.MULTILINE)
    assert text.count("FROM ${PYTHON_IMAGE}") == 2, "one base image, named by a build argument"


def test_the_image_holds_every_package_and_nothing_else() -> None:
    text = (ROOT / "Dockerfile").read_text()
    ignore = (ROOT / ".dockerignore").read_text().split()
    packages = [line.strip().rstrip("*") for line in _setup()["options.packages.find"]["include"].split("\n") if line]
    for name in packages:
        assert f"COPY {name} {name}" in text
        assert f"!{name}" in ignore
    assert "*" in ignore


def test_the_procfile_is_the_table_of_roles() -> None:
    assert _procfile() == {role.name: role.command for role in ROLES}


def test_what_compose_migrates_with_is_there() -> None:
    python, flag, code = _services()["migrate"]["command"]
    assert (python, flag) == ("python", "-c")
    imports = code.rpartition(";")[0]
    subprocess.run([sys.executable, "-c", imports], check=True, timeout=60, cwd=ROOT)


def test_compose_runs_every_process_of_the_procfile() -> None:
    services = _services()
    assert set(services) == set(_procfile()) | PARTS
    for role, command in _procfile().items():
        assert " ".join(services[role]["command"]) == command.removeprefix("exec "), role


def test_compose_uses_one_image_for_all_of_ours() -> None:
    services = _services()
    images = {services[name]["image"] for name in set(services) - {"postgres", "redis"}}
    assert len(images) == 1
    assert "build" in services["web"]


def test_compose_starts_in_order() -> None:
    services = _services()
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    for role in set(_procfile()) & {"web", "agent", "beat", "flower"}:
        wanted = services[role]["depends_on"]
        assert wanted["migrate"]["condition"] == "service_completed_successfully", role
        assert wanted["redis"]["condition"] == "service_healthy", role
    for role in ON_NODE:
        assert set(services[role]["depends_on"]) == {"agent"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)


def test_compose_checks_health_where_something_answers() -> None:
    services = _services()
    for name in ("postgres", "redis"):
        assert services[name]["healthcheck"]["test"]
    assert "healthcheck" not in services["gateway"], "the image's own"
    for name in set(services) - {"postgres", "redis", "gateway"}:
        assert services[name]["healthcheck"] == {"disable": True}, name


def test_what_shares_a_host_shares_processes_network_and_state() -> None:
    services = _services()
    for role in ON_NODE:
        assert services[role]["network_mode"] == services[role]["pid"] == "service:agent"
        assert "state:/var/lib/hostler" in services[role]["volumes"]
        assert "ports" not in services[role]
    assert "state:/var/lib/hostler" in services["agent"]["volumes"]


def test_compose_publishes_on_loopback_only() -> None:
    published = [port for service in _services().values() for port in service.get("ports", [])]
    assert published
    assert all(str(port).startswith("127.0.0.1:") for port in published)


def test_no_secret_stands_in_the_compose_file() -> None:
    for name, service in _services().items():
        for variable, value in service.get("environment", {}).items():
            is_secret = any(word in variable for word in ("PASSWORD", "KEY", "URL"))
            assert not is_secret or str(value).startswith(f"${{{variable}:?"), f"{name}: {variable}"
    for role in {*_procfile(), "migrate"}:
        assert _services()[role]["env_file"] == "deploy/compose.env", role


def test_postgres_and_redis_know_only_their_own_secret() -> None:
    for name in ("postgres", "redis"):
        service = _services()[name]
        assert "env_file" not in service
        assert [key for key in service["environment"] if "PASSWORD" in key] == [f"{name.upper()}_PASSWORD"]


def test_made_secrets_are_new_whole_and_closed(tmp_path: Path) -> None:
    from cryptography.fernet import Fernet

    shutil.copy(ROOT / "deploy" / "make-compose-env", tmp_path)
    values = []
    for _ in range(2):
        subprocess.run([tmp_path / "make-compose-env"], check=True, capture_output=True, timeout=30)
        made = tmp_path / "compose.env"
        assert made.stat().st_mode & 0o777 == 0o600
        lines = [line for line in made.read_text().splitlines() if not line.startswith("#")]
        values.append(dict(line.split("=", 1) for line in lines))
    assert values[0] == values[1], "a second run changes nothing"
    env = values[0]
    Fernet(env["HOSTLER_SECRET_KEY"])
    assert len(env["HOSTLER_API_KEY"]) >= 32, "it listens beyond loopback"
    assert env["POSTGRES_PASSWORD"] in env["HOSTLER_DATABASE_URL"]
    assert env["REDIS_PASSWORD"] in env["HOSTLER_BROKER_URL"]


@pytest.mark.skipif(shutil.which("docker") is None, reason="there is no docker")
def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("docker has no compose plugin")
    for name in ("docker-compose.yml", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "make-compose-env", tmp_path / "deploy")
    subprocess.run([tmp_path / "deploy" / "make-compose-env"], check=True, capture_output=True, timeout=30)
    argv = ["docker", "compose", "--env-file", "deploy/compose.env", "config", "--quiet"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", [".ci/run", "deploy/make-venv", "deploy/make-compose-env"])
def test_scripts_run_and_parse(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = path.read_text().splitlines()[0].rpartition("/")[2].split()[-1]
    subprocess.run([shell, "-n", str(path)], check=True, timeout=30)


def test_make_venv_is_quick_when_nothing_changed(tmp_path: Path) -> None:
    """The stamp is believed: no pip, no network, and the interpreter is only asked for its version."""
    for name in ("requirements.lock", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy" / "make-venv", tmp_path / "deploy")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(ROOT / ".venv" / "bin" / "python")
    wanted = "{ pwd -P; cat requirements.lock setup.cfg pyproject.toml; } | sha256sum | cut -d' ' -f1 > .venv/.stamp"
    subprocess.run(["sh", "-c", wanted], cwd=tmp_path, check=True, timeout=30)
    done = subprocess.run([script], cwd="/", capture_output=True, text=True, check=True, timeout=30)
    assert (done.stdout, done.stderr) == ("", "")


def test_make_venv_names_the_package_that_is_missing(tmp_path: Path) -> None:
    for name in ("requirements.lock", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy" / "make-venv", tmp_path / "deploy")
    bare = tmp_path / "python-without-venv"
    bare.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *"%d.%d"*) echo 3.11;; *) exit 0;; esac\n')
    bare.chmod(0o755)
    done = subprocess.run(
        [script], env={**os.environ, "PYTHON": str(bare)}, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


def test_make_venv_says_that_python_is_too_old(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    script = shutil.copy(ROOT / "deploy" / "make-venv", tmp_path / "deploy")
    for name in ("requirements.lock", "setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = tmp_path / "python-old"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        [script], env={**os.environ, "PYTHON": str(old)}, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert "no Python >= 3.11" in done.stderr
