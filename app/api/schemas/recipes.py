"""Recipes."""

from __future__ import annotations

import marshmallow as ma

from app.api.paging import PageQuery
from app.api.schemas.base import Answer, Body, Page
from app.api.schemas.fields import JsonObject, Text, Whole
from app.api.schemas.replicas import MODEL_NAME, POOL_NAME


class RecipeQuery(PageQuery):
    """Filters of the list of recipes."""

    path = Text(1, 200, metadata={"description": "A category, or `category/name`."})
    name = Text(1, 200, metadata={"description": "A short name, or `category/name`."})


class Recipe(Answer):
    """How a kind of inference server is brought into service. What it sets stands beside these, as in its file."""

    recipe = ma.fields.String(required=True, metadata={"description": "`category/name`."})
    name = ma.fields.String(required=True)
    category = ma.fields.String(required=True)
    path = ma.fields.String(required=True)
    source = ma.fields.String(required=True, metadata={"enum": ["built-in", "folder"]})
    state = ma.fields.String(required=True, metadata={"enum": ["ok", "broken"]})
    problems = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "Why its file is not served as it stands."}
    )
    served = ma.fields.Boolean(
        required=True, metadata={"description": "A broken one serves as it last was good, if it ever was."}
    )
    description = ma.fields.String(required=True)
    version = ma.fields.String(required=True)
    engine = ma.fields.String(required=True)
    parameters = ma.fields.Dict(required=True, metadata={"description": "What a request may set, by name."})


class RecipePage(Page):
    """Recipes by name."""

    recipes = ma.fields.List(ma.fields.Nested(Recipe), required=True)
    problems = ma.fields.List(
        ma.fields.String(), required=True, metadata={"description": "Of the folder of your own recipes as a whole."}
    )


class RecipeRender(Body):
    """What is laid over the recipe, as in a create of a service."""

    config = JsonObject(metadata={"description": "`environment`, `resources`, `parameters`, ...: docs/recipes.md."})
    replicas = Whole(0, 10_000)
    pool = Text(1, 63, POOL_NAME)
    model_name = Text(1, 200, MODEL_NAME)


class Rendered(Answer):
    """What a create would be. Secret values are masked."""

    recipe = ma.fields.String(required=True)
    version = ma.fields.String(required=True)
    count = ma.fields.Integer(required=True, metadata={"description": "Replicas of a service."})
    replica = ma.fields.Dict(required=True, metadata={"description": "The create of each of them."})
    plan = ma.fields.Dict(required=True, metadata={"description": "What each would run."})
    all_or_nothing = ma.fields.Boolean(required=True)
    update = ma.fields.Dict(required=True)
    restart = ma.fields.Dict(required=True)
    successor_lead_s = ma.fields.Float(required=True, allow_none=True)
    warnings = ma.fields.List(ma.fields.String(), required=True, metadata={"description": "Wishes not granted."})
