"""What can go wrong when a stack is started or stopped. Each message ends in what to do next."""

from __future__ import annotations


class StackError(Exception):
    """The stack could not be started, stopped or asked."""


class BadState(StackError):
    """The state dir cannot be used as it is."""


class DiskFull(StackError):
    """The disk of the state dir is full."""


class PathTooLong(StackError):
    """A path is too long for a socket."""


class PortInUse(StackError):
    """Something listens on the port already."""


class TooOpen(StackError):
    """The address would be reachable beyond loopback without enough protection."""


class NoAccount(StackError):
    """There is no user to run as."""


class PartFailed(StackError):
    """A process of the stack did not come up."""


class Busy(StackError):
    """Another `hostler up` or `down` works on the same state dir."""
