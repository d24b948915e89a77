"""``/api/v1/recipes``: how kinds of inference servers are brought into service, and the schema of their files."""

from __future__ import annotations

from typing import Any

from flask import Response

from app.api import answers, paging
from app.api.auth import actor, context
from app.api.blueprint import Blueprint
from app.api.schemas.recipes import Recipe, RecipePage, RecipeQuery, RecipeRender, Rendered
from app.domain.recipe_schema import RECIPE
from app.usecases import recipes

blueprint = Blueprint("recipes", "Recipes: how kinds of inference servers are brought into service.")


@blueprint.operation("/recipes", "GET", "read", conditional=True)
@blueprint.arguments(RecipeQuery(), location="query")
@blueprint.response(200, RecipePage)
def list_recipes(query: dict[str, Any]) -> Response:
    """List recipes, broken ones too"""
    found, total, more = recipes.list_recipes(context(), *paging.split(query))
    problems = recipes.folder_problems(context())
    return answers.read({"recipes": found, "total": total, "problems": problems, "next_cursor": more})


@blueprint.operation("/recipes/<path:name>", "GET", "read", conditional=True)
@blueprint.response(200, Recipe)
def get_recipe(name: str) -> Response:
    """Show a recipe by its name or `category/name`"""
    return answers.read(recipes.get(context(), name))


@blueprint.operation("/recipes/<path:name>/render", "POST", "operate", replays=False)
@blueprint.arguments(RecipeRender(), required=False)
@blueprint.response(200, Rendered)
def render_recipe(body: dict[str, Any], name: str) -> Response:
    """Show what a service or replica of a recipe would be; nothing is changed"""
    return answers.answer(recipes.plan(context(), actor(), name, body))


@blueprint.operation("/schemas/recipe.json", "GET", "read", conditional=True)
@blueprint.response(200, {"type": "object"}, content_type="application/schema+json")
def recipe_schema() -> Response:
    """The JSON Schema of a recipe's file, for editors too

    An editor that cannot send a key reads what `hostler recipe schema` prints: it is the same.
    """
    response = answers.read(RECIPE)
    response.content_type = "application/schema+json"
    return response
