"""What is refused, in the words and codes of Qdrant."""

from __future__ import annotations


class Refused(Exception):
    """The answer is an error of ``status``, and ``message`` says why."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(message)


def malformed(message: str) -> Refused:
    """The body's form is wrong."""
    return Refused(400, f"Format error in JSON body: {message}")


def invalid(field: str, message: str) -> Refused:
    """The body's form is right, and a value is out of its bounds."""
    return Refused(422, f"Validation error in JSON body: [{field}: {message}]")


def wrong_input(message: str) -> Refused:
    """It does not go with what is stored."""
    return Refused(400, f"Wrong input: {message}")


def unknown_collection(name: str) -> Refused:
    return Refused(404, f"Not found: Collection `{name}` doesn't exist!")


def not_here(what: str) -> Refused:
    """Qdrant's server can do it and this one cannot: never silently something else."""
    return Refused(400, f"Wrong input: {what} is not supported by qdrant-edge; use the engine qdrant")
