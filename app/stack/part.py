"""Become an embedded part: ``python -m app.stack.part postgres|redis``, run by supervisord.

A program of its own, so that argv may hold any path, and the part sees none of the stack's environment.
"""

from __future__ import annotations

import os
import sys

from app.settings import Settings
from app.stack.layout import Layout
from app.stack.postgres import postgres_argv, postgres_env
from app.stack.redis import redis_argv, redis_env
from app.stack.roles import POSTGRES, REDIS
from app.stack.runas import become


def main(argv: list[str]) -> int:
    """Returns only on a usage error."""
    settings = Settings.load()
    layout = Layout(settings.state_dir)
    if argv[1:] == [POSTGRES]:
        owner = os.stat(layout.postgres_data)
        command, environ = postgres_argv(settings), postgres_env()
        os.chdir(layout.postgres_data)
        # last: its user may not be able to enter the state dir
        if os.geteuid() == 0:
            become(owner.st_uid, owner.st_gid)
    elif argv[1:] == [REDIS]:
        os.chdir(layout.redis)
        command, environ = redis_argv(settings), redis_env()
    else:
        sys.stderr.write(f"usage: python -m app.stack.part {POSTGRES}|{REDIS}\n")
        return 2
    return os.execve(command[0], command, environ)  # noqa: S606  (becoming it is what this is for)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
