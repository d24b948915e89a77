"""Models."""

from __future__ import annotations

import marshmallow as ma
from marshmallow import validate

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import JsonObject, Text
from app.api.schemas.replicas import MODEL_NAME


class ModelCreate(Body):
    """A model for the catalogue."""

    name = Text(1, 200, MODEL_NAME, required=True)
    engine = Text(1, 63, required=True)
    source = Text(0, 4096, metadata={"description": "A path (relative: in the models folder) or a hub id."})
    format = Text(0, 63)
    defaults = JsonObject(metadata={"description": "Merged under every create's `replica_config`."})
    aliases = ma.fields.List(Text(1, 200, MODEL_NAME), validate=validate.Length(max=64))


class ModelQuery(PageQuery):
    """Filters of the list of models."""

    engine = Text(1, 63)
    format = Text(1, 63)


class Model(Answer):
    """A model that can be asked for by name."""

    name = ma.fields.String(required=True)
    engine = ma.fields.String(required=True)
    source = ma.fields.String(required=True)
    format = ma.fields.String(required=True)
    defaults = ma.fields.Dict(required=True)
    aliases = ma.fields.List(ma.fields.String(), required=True)
    owner = ma.fields.String(required=True, allow_none=True)
    created_at = ma.fields.DateTime(required=True, allow_none=True)
    in_catalogue = ma.fields.Boolean(
        required=True, metadata={"description": "False for a file of the models folder that nobody described."}
    )
    problem = ma.fields.String(required=True, metadata={"description": "Why the file cannot be served, or empty."})


class ModelPage(Page):
    """Models by name."""

    models = ma.fields.List(ma.fields.Nested(Model), required=True)
