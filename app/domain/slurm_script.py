"""The script that is submitted to Slurm for one attempt: to be read by people, and shown by ``dry_run``."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What begins the comment of every job of ours; the attempt's name and the launch's nonce follow.
MARK = "hostler"
#: Where attempts lie on the host with Slurm's commands, unless the option ``folder`` says so.
DEFAULT_FOLDER = "~/.hostler/slurm"
#: Where the key stands in a script that is shown.
KEY_NOT_SHOWN = "(the key to the file private, known to Slurm alone)"
#: Options whose values go to sbatch as they are, and sbatch's names for them.
PLAIN = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
    "dependency": "dependency",
    "exclude": "exclude",
    "nodelist": "nodelist",
    "licenses": "licenses",
    "time_limit": "time",
    "cpus": "cpus-per-task",
    "memory": "mem",
    "nice": "nice",
    "begin": "begin",
}


class NoDirective(ValueError):
    """A value that cannot stand on one line of the script."""


@dataclass(frozen=True)
class Job:
    """What the script is made of. ``folder``: of the attempt, absolute on the nodes."""

    name: str
    replica_id: str
    attempt: int
    nonce: str
    folder: str
    argv: Sequence[str]
    gpus: int = 0
    nodes: int = 1


def render_script(job: Job, options: Mapping[str, Any], key: str = KEY_NOT_SHOWN) -> str:
    """The whole script. Every value is quoted; ``options`` are valid by the backend's schema.

    Raises NoDirective for a value that could end its line, whoever let it pass.
    """
    directives = directive_lines(job, options)
    lines = [
        "#!/bin/bash",
        f"# Hostler: attempt {job.attempt} of replica {job.replica_id}. Its environment, which may hold secrets, comes",
        "# from the file private beside it; it starts nothing unless it is this attempt's own and only job.",
        *directives,
        "",
        f"cd -- {shlex.quote(job.folder)} || exit 1",
        *setup_lines(options),
        f"exec {shlex.quote(options.get('python', 'python3'))} -I -S job.py {job.nonce} -- \\",
        *_fed(command_lines(container_argv(job.argv, options))),
        key,
        "END",
    ]
    return "\n".join(lines) + "\n"


def setup_lines(options: Mapping[str, Any]) -> list[str]:
    """Shell that runs before our program: where Slurm's commands are, which it asks on the node too, and the pool's."""
    commands = options.get("commands")
    found = [f'export PATH={shlex.quote(commands)}:"$PATH"'] if commands else []
    return [*found, *(options.get("setup") or ())]


def directive_lines(job: Job, options: Mapping[str, Any]) -> list[str]:
    """``#SBATCH --NAME=VALUE`` for each of ``directives_of``. Raises NoDirective."""
    return [f"#SBATCH {_directive(name, value)}" for name, value in directives_of(job, options)]


def directives_of(job: Job, options: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Options of sbatch with their values (None: has none), in the order in which the script names them."""
    said: list[tuple[str, str | None]] = [
        ("job-name", job.name),
        ("comment", comment_of(job.name, job.nonce)),
        ("chdir", job.folder),
        # a percent sign begins a pattern there
        ("output", job.folder.replace("%", "%%") + "/slurm.out"),
        ("open-mode", "append"),
        ("export", "NONE"),
        ("nodes", str(job.nodes)),
        ("ntasks-per-node", "1"),
    ]
    said += [(name, _text(options[option])) for option, name in PLAIN.items() if options.get(option) is not None]
    if options.get("exclusive"):
        said.append(("exclusive", None))
    if "requeue" in options:
        said.append(("requeue" if options["requeue"] else "no-requeue", None))
    gres = options.get("gres")
    if gres:
        said.append(("gres", gres))
    elif job.gpus:
        kind = f":{options['gpu_type']}" if options.get("gpu_type") else ""
        # of each node; they are shared out evenly
        said.append(("gres", f"gpu{kind}:{-(-job.gpus // job.nodes)}"))
    for flag in options.get("extra") or ():
        name, _, value = flag.removeprefix("--").partition("=")
        said.append((name, value if "=" in flag else None))
    return said


def comment_of(name: str, nonce: str) -> str:
    """What marks a job as ours: a name alone proves nothing, anybody may use it."""
    return f"{MARK}:{name}:{nonce}"


def container_argv(argv: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """``argv``, in an Apptainer image where ``apptainer`` says so."""
    wish = options.get("apptainer")
    if not wish:
        return list(argv)
    binds = [word for bind in wish.get("binds", ()) for word in ("--bind", bind)]
    return [
        wish.get("program", "apptainer"),
        "exec",
        *(["--nv"] if wish.get("nv") else []),
        *binds,
        wish["image"],
        *argv,
    ]


def _directive(name: str, value: str | None) -> str:
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in f"{name}{value or ''}"):
        raise NoDirective(f"sbatch's option {name!r} holds a control character or the end of a line")
    if value is None:
        return f"--{name}"
    return f"--{name}={value if _is_plain(value) else _quoted(value)}"


def _is_plain(value: str) -> bool:
    return bool(value) and all(sign.isalnum() or sign in "-_./:,=@+%~[]*" for sign in value)


def _quoted(value: str) -> str:
    """As sbatch reads its own lines: between double quotes a backslash protects what follows."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def command_lines(argv: Sequence[str]) -> list[str]:
    """One line for each option with its value, which is how people read them."""
    lines: list[list[str]] = [[]]
    for word in argv:
        if word.startswith("-") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    shown = ["    " + " ".join(line) for line in lines]
    return [*(f"{line} \\" for line in shown[:-1]), shown[-1]]


def _fed(lines: list[str]) -> list[str]:
    """The same with the lines that follow as its input."""
    return [*lines[:-1], f"{lines[-1]} <<'END'"]


def _text(value: object) -> str:
    return str(value)
