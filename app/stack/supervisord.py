"""supervisord, whose logs may be lost but never end it: ``python -m app.stack.supervisord``.

On a full disk its own log handlers raise, while they complain into a file on that disk: it drops the output of its
programs, and then ends itself, with nobody left to start anything again.
"""

from __future__ import annotations

from contextlib import suppress

from supervisor import loggers, supervisord


class LossyFile(loggers.RotatingFileHandler):
    """Writes what it can. What a full disk refuses is lost; with room again the log goes on."""

    def emit(self, record: object) -> None:
        with suppress(OSError):
            super().emit(record)

    def handleError(self) -> None:  # noqa: N802 - the library's name
        """There is nowhere else to complain to."""


def main() -> None:
    """Become supervisord, with the arguments of this process."""
    # looked up by this name whenever a log is opened
    loggers.RotatingFileHandler = LossyFile
    supervisord.main()


if __name__ == "__main__":
    main()
