"""What can be asked for: the models of the catalogue, of the models folder, and whatever runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.db.repos import served as repo
from app.engines.registry import STORES
from app.usecases import models
from app.usecases.context import Actor, Context
from app.usecases.registered_models import registered_models
from app.usecases.served import visible_names

#: Of a model that nobody described.
_UNDESCRIBED: Mapping[str, Any] = {"engine": "", "format": "", "aliases": []}


def list_served(context: Context, actor: Actor) -> list[dict[str, Any]]:
    """Every model that the key may ask for: catalogue, models folder, and what runs; ``loaded``: one is ready.

    A key that is limited to an alias of a model sees it under that alias.
    """
    with context.database.read() as connection:
        described = {model["name"]: model for model in models.read_all(context, connection)}
        own = {alias: name for name, model in described.items() for alias in model["aliases"]}
        found = {name: _Served() for name in (*described, *registered_models(context, connection))}
        for name in registered_models(context, connection):
            found[name].registered = True
        for row in repo.counts(connection, STORES):
            name = row.model_name if row.model_name in described else own.get(row.model_name, row.model_name)
            found.setdefault(name, _Served()).add(row)
    shown = []
    for name, served in found.items():
        model = described.get(name, _UNDESCRIBED)
        for visible in visible_names(actor, name, model["aliases"]):
            shown.append(served.shown(visible, model))
    return sorted(shown, key=lambda one: str(one["id"]))


@dataclass
class _Served:
    """What runs of one model."""

    engines: set[str] = field(default_factory=set)
    ready: int = 0
    replicas: int = 0
    registered: bool = False

    def add(self, row: Any) -> None:
        self.engines.add(row.engine)
        self.ready += row.ready
        self.replicas += row.replicas

    def shown(self, name: str, model: Mapping[str, Any]) -> dict[str, Any]:
        engines = ", ".join(sorted(self.engines or {model["engine"]} - {""}))
        replicas = f"{self.ready} of {self.replicas} replicas ready" if self.replicas or not self.registered else ""
        parts = (engines, replicas, "registered servers" if self.registered else "")
        return {
            "id": name,
            "name": name,
            "description": "; ".join(part for part in parts if part),
            "format": model["format"].upper() or "unknown",
            "loaded": self.ready > 0 or self.registered,
        }
