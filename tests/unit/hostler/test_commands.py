"""The command tree as a whole: fast to load, documented, completable, and a key has no place in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner

from app.domain.lifecycle import TERMINAL
from app.domain.tasks import ENDED
from hostler import errors, waiting
from hostler.cli import _MODULES, cli
from hostler.cli.reference import commands
from hostler.errors import EXIT_CODES, HostlerError
from hostler.verbs import Verbs

ROOT = Path(__file__).resolve().parents[3]
EVERY = {path: command for path, command, _ in commands(cli, None, "hostler")}  # type: ignore[arg-type]
#: What only commands that talk to a server or draw a table may load.
HEAVY = ("httpx2", "rich", "yaml", "flask", "celery", "sqlalchemy", "gguf", "numpy")


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from hostler.cli import main\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.splitlines()[-1].split())
    assert not loaded & set(HEAVY)


def test_the_help_shows_every_command_and_exit_code() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    for name in _MODULES:
        if cli.get_command(click.Context(cli), name) is not None:
            assert f"\n  {name} " in text
    for code, meaning in EXIT_CODES.items():
        assert f"{code}  {meaning}" in text


@pytest.mark.parametrize("path", sorted(EVERY))
def test_each_command_and_flag_is_documented(path: str) -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    command = EVERY[path]
    assert command.help
    if path == "hostler":
        section = page
    else:
        match = re.search(rf"^### {re.escape(path)}\n(.*?)(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
        assert match, f"{path} is missing: python -m hostler.cli.reference > docs/cli.md"
        section = match[1]
    for param in command.params:
        if isinstance(param, click.Option) and param.expose_value:
            for flag in (*param.opts, *param.secondary_opts):
                assert flag in section, f"{flag} of {path} is missing: python -m hostler.cli.reference > docs/cli.md"
            assert param.help or param.name == "output", f"{flag} of {path} has no help text"


@pytest.mark.parametrize("path", sorted(EVERY))
def test_no_command_takes_a_key_as_an_argument(path: str) -> None:
    flags = {flag for param in EVERY[path].params for flag in param.opts}
    assert not flags & {"--key", "--api-key", "--token", "--password"}


@pytest.mark.parametrize(
    "path", sorted(path for path, command in EVERY.items() if not isinstance(command, click.Group))
)
def test_the_help_of_each_command_works(path: str) -> None:
    result = CliRunner().invoke(cli, [*path.split()[1:], "--help"])
    assert result.exit_code == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert "_HOSTLER_COMPLETE" in result.stdout
    assert "to install it" in result.stderr


def test_completion_of_commands_needs_no_server() -> None:
    found = BashComplete(cli, {}, "hostler", "_HOSTLER_COMPLETE").get_completions(["replica"], "st")
    assert [item.value for item in found] == ["stop"]


def test_completion_of_ids_is_silent_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_URL", "http://127.0.0.1:1")
    found = BashComplete(cli, {}, "hostler", "_HOSTLER_COMPLETE").get_completions(["replica", "get"], "")
    assert found == []


def test_python_m_hostler_is_the_command() -> None:
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "hostler", "--version"], capture_output=True, text=True, env=env, check=True
    )
    assert ran.stdout.startswith("hostler ")


def test_the_words_of_waiting_are_the_servers() -> None:
    assert {str(state) for state in TERMINAL} == waiting.TERMINAL
    assert {str(state) for state in ENDED} == waiting.TASK_ENDED


def test_each_verb_and_error_of_the_client_is_documented() -> None:
    page = (ROOT / "docs" / "client.md").read_text()
    verbs = [name for name in dir(Verbs) if not name.startswith("_") and callable(getattr(Verbs, name))]
    kinds = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, HostlerError)]
    assert len(verbs) > 30
    for name in (*verbs, *kinds):
        assert f"`{name}`" in page or f"hostler.{name}`" in page, f"{name} is not in docs/client.md"
