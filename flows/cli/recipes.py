"""`dapflow recipes`: which there are, and each in full. Test: pytest tests/flows/recipes"""

import json
from typing import Any

from dapflow.flows.cli.options import JsonLast
from dapflow.flows.server.environment import prepare


def recipes(name: str | None = None, /, *, as_json: JsonLast = False) -> None:
    """List the recipes, or print one in full with every key that --set can change.

    Example: dapflow recipes rso
    """
    prepare(None)
    from dapflow.flows.recipes.changes import origins
    from dapflow.flows.recipes.files import find_recipe
    from dapflow.flows.recipes.methods import RECIPES

    if name is not None:
        chosen = find_recipe(name)
        print(
            json.dumps(chosen.model_dump(mode="json"))
            if as_json
            else in_full(chosen.model_dump(mode="json"), origins(chosen))
        )
    elif as_json:
        print(json.dumps([recipe.model_dump(mode="json") for recipe in RECIPES.values()]))
    else:
        for recipe in RECIPES.values():
            print(f"{recipe.name:<19} {recipe.title} ({recipe.paper})")


def in_full(
    values: dict[str, Any], origins: dict[str, str], prefix: str = "", depth: int = 0
) -> str:
    """A recipe as YAML, as it can stand in a file of one's own, each value with where it comes
    from.
    """
    import yaml

    lines: list[str] = []
    for key, value in values.items():
        known = origins.get(f"{prefix}{key}")
        if isinstance(value, dict) and known is None:
            lines += [
                f"{'  ' * depth}{key}:",
                in_full(value, origins, f"{prefix}{key}.", depth + 1),
            ]
        else:
            said = yaml.safe_dump(
                [value], default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
            ).strip()[1:-1]
            lines.append(f"{'  ' * depth}{key}: {said}" + (f"  # {known}" if known else ""))
    return "\n".join(lines)
