"""The API with a hub that stands beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.hub import asking
from app.settings import Settings
from app.usecases import hub as usecase
from tests.integration.api.conftest import admin, admin_key, anybody, caller, ctx, web
from tests.standins.hub import TOKEN, Hub, hub

__all__ = ["admin", "admin_key", "anybody", "caller", "ctx", "web"]

#: Long enough for an answer on a busy machine, short enough for a test that waits for its end.
PATIENCE_S = 5.0


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as it:
        yield it


@pytest.fixture
def web_settings(settings: Settings, tmp_path: Path, there: Hub, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(asking, "PATIENCE_S", PATIENCE_S)
    monkeypatch.setattr(usecase, "_shelf", usecase.Shelf())
    return replace(settings, models_dir=tmp_path, hf_endpoint=there.endpoint, hf_token=TOKEN)
