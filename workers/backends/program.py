"""What no program can be given, wherever it runs."""

from __future__ import annotations

from workers.backends.base import Launch, LaunchRefused


def check_words(launch: Launch) -> None:
    """Arguments and environment. Raises LaunchRefused for those that no system hands on."""
    if not launch.argv or not launch.argv[0]:
        raise LaunchRefused("there is no program to run: argv is empty")
    if any("\0" in item for item in [*launch.argv, *launch.env.keys(), *launch.env.values()]):
        raise LaunchRefused("an argument or variable holds a NUL character")
    if any("=" in name or not name for name in launch.env):
        raise LaunchRefused("the name of a variable is empty or holds '='")
