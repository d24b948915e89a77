"""What stands in a command for an address that is known only where it runs."""

from __future__ import annotations

#: In argv, in values of the environment and in files. In JSON the port stands in quotes, which go with it.
PORT_LATER = "@HOSTLER_PORT@"
HOST_LATER = "@HOSTLER_HOST@"


def put_address(value: str, host: str, port: int) -> str:
    """``value`` with the address in the place of its placeholders."""
    return value.replace(f'"{PORT_LATER}"', str(port)).replace(PORT_LATER, str(port)).replace(HOST_LATER, host)
