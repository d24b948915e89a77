"""``make docs``: write anew what the README and docs/ show of the code, between ``<!-- generated: NAME -->`` markers.

The code is the source; a test fails when a page has drifted from it.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from app import create_app, errors
from app.domain.lifecycle import STATE_MEANING, TERMINAL, State, mermaid, sources_of
from app.domain.recipe_schema import RECIPE
from app.engines.registry import ENGINES
from app.settings import Settings, env_name
from app.usecases.recipe_files import Shelf
from app.usecases.retention import BOUNDS, Kept

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    "README.md",
    "docs/api.md",
    "docs/architecture.md",
    "docs/engines.md",
    "docs/errors.md",
    "docs/gateway.md",
    "docs/operations.md",
    "docs/recipes.md",
)
#: The schema of recipes, for editors that look into the repository.
RECIPE_SCHEMA = "docs/recipe.schema.json"
#: Beside those whose names begin so, the settings that are the gateway's.
OF_THE_GATEWAY = (
    "host", "port", "tls_certificate", "tls_key", "haproxy", "max_body", "engine_key", "flower_port", "cors_origins"
)  # fmt: skip


def main() -> None:
    for page in PAGES:
        path = ROOT / page
        before = path.read_text()
        after = rendered(before)
        if after != before:
            path.write_text(after)
            print(f"wrote {page}")
    (ROOT / RECIPE_SCHEMA).write_text(recipe_schema())


def rendered(page: str) -> str:
    """The page with every generated part as it should be. KeyError for a marker that nothing makes."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- generated: ([a-z-]+) -->)\n.*?(<!-- end -->)", fill, page, flags=re.DOTALL)


def lifecycle() -> str:
    return f"```mermaid\n{mermaid()}\n```"


def states() -> str:
    rows = [
        (f"`{state}`", STATE_MEANING[state], "yes" if state in TERMINAL else "", _names(sources_of(state)))
        for state in State
    ]
    return _table(("state", "means", "terminal", "entered from"), rows)


def settings() -> str:
    return _settings(lambda name: True)


def gateway_settings() -> str:
    return _settings(lambda name: name.startswith(("gateway_", "slow_lane_")) or name in OF_THE_GATEWAY)


def _settings(shown: Callable[[str], bool]) -> str:
    rows = []
    for item in [item for item in fields(Settings) if shown(item.name)]:
        default = "" if item.metadata["secret"] or item.default in ("", Path()) else f"`{_shown(item.default)}`"
        note = " Secret." if item.metadata["secret"] else ""
        also = item.metadata["also"]
        note += f" `{also}` means the same." if also else ""
        rows.append((f"`{env_name(item.name)}`", default, item.metadata["doc"] + note))
    return _table(("variable", "default", "what it is"), rows)


def error_codes() -> str:
    rows = [
        (f"`{error.code}`", str(error.status), "yes" if error.retryable else "no", (error.__doc__ or "").strip())
        for error in _errors(errors.HostlerError)
    ]
    return _table(("code", "status", "try again?", "message"), sorted(rows, key=lambda row: (row[1], row[0])))


def routes() -> str:
    """From the OpenAPI document; nothing is started for it."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings.load({}, state_dir=Path(folder)))
        document = app.test_client().get("/openapi.json").get_json()
        app.extensions["hostler"].close()
    rows = []
    for path, operations in document["paths"].items():
        for method in ("get", "post", "put", "patch", "delete"):
            if method in operations:
                operation = operations[method]
                roles = [operation.get("x-required-role"), *operation.get("x-other-roles", ())]
                shown = " or ".join(f"`{role}`" for role in roles if role)
                rows.append((f"`{method.upper()} {path}`", shown, operation["summary"]))
    return _table(("route", "role", "what it does"), rows)


def engines() -> str:
    """Each engine with what its ``replica_config`` may hold."""
    parts = []
    for name, one in ENGINES.items():
        known = one.config_schema.get("properties", {})
        members = [f"`{member}`: {part['description']}" for member, part in known.items()]
        parts.append(f"**`{name}`**. {one.summary}\n\n" + "\n".join(f"- {member}" for member in members))
    return "\n\n".join(parts)


def recipe_schema() -> str:
    """The schema as a file."""
    return json.dumps(RECIPE, indent=1, ensure_ascii=False) + "\n"


def recipes() -> str:
    """The built-in recipes, from their files."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, known in Shelf(Path(folder) / "none", Path(folder) / "kept").look().items():
            assert known.recipe is not None, known.problems
            parameters = ", ".join(f"`{one.environment or one.name}`" for one in known.recipe.parameters)
            rows.append((f"`{name}`", known.recipe.description, parameters))
    return _table(("recipe", "what it brings into service", "set by"), rows)


def recipe_fields() -> str:
    """What a recipe may hold, from its schema."""
    rows = []
    for name, schema in RECIPE["properties"].items():
        members = schema.get("properties", {})
        inner = ", ".join(f"`{member}`" for member in members)
        rows.append((f"`{name}`", " ".join(part for part in (schema.get("description", ""), inner) if part)))
    return _table(("field", "what it says"), rows)


def retention() -> str:
    rows = []
    for table, bound in sorted(BOUNDS.items()):
        what, kept = (bound.what, _kept_for(bound.at_most_s)) if isinstance(bound, Kept) else (bound.why, "as it is")
        rows.append((f"`{table}`", what, kept))
    return _table(("table", "what", "kept for"), rows)


def _kept_for(at_most_s: float) -> str:
    if at_most_s == float("inf"):
        return f"`{env_name('retention_days')}`"
    if at_most_s == 0:
        return "not at all"
    return f"{at_most_s / 3600:g} hours" if at_most_s >= 3600 else f"{at_most_s / 60:g} minutes"


def _errors(top: type[errors.HostlerError]) -> Iterator[type[errors.HostlerError]]:
    yield top
    for below in top.__subclasses__():
        yield from _errors(below)


def _names(found: frozenset[State]) -> str:
    return ", ".join(f"`{state}`" for state in State if state in found)


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return "-".join(str(part) for part in default)
    return f"{default:g}" if isinstance(default, float) else str(default)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "lifecycle": lifecycle,
    "states": states,
    "settings": settings,
    "gateway-settings": gateway_settings,
    "error-codes": error_codes,
    "retention": retention,
    "engines": engines,
    "recipes": recipes,
    "recipe-fields": recipe_fields,
    "routes": routes,
}

if __name__ == "__main__":
    main()
