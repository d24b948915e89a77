"""Hostler's server side. ``create_app`` makes the web application; gunicorn calls it once in every process."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask

    from app.settings import Settings


def create_app(settings: Settings | None = None) -> Flask:
    """The control API. Nothing is connected before the first request; settings default to the environment's."""
    # imported here: workers and the command line load parts of this package without a web framework
    from app.api.application import make_application
    from app.settings import Settings

    return make_application(settings or Settings.load())
