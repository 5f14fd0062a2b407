"""A recipe of the user's own: a YAML file that changes a named recipe, or a Python file with a
Recipe.

    own_recipe("./mine.yaml")        base: rso, then any of a recipe's keys
    own_recipe("./mine.py")          RECIPE = RSO.model_copy(update={...})
Test: pytest tests/flows/recipes/test_files.py
"""

import importlib.util
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from dapflow.flows.recipes.changes import merged, sentences, validated
from dapflow.flows.recipes.methods import recipe_named
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import UserError
from dapflow.tasks.training.losses.loss import Loss

SUFFIXES = (".yaml", ".yml", ".py")


def find_recipe(name: str) -> Recipe:
    """The recipe of that name, or in that file. Raises UserError."""
    return own_recipe(Path(name).expanduser()) if name.endswith(SUFFIXES) else recipe_named(name)


def own_recipe(path: Path) -> Recipe:
    """The recipe in a file, validated. Raises UserError that names the file and the field."""
    if not path.is_file():
        raise UserError(
            f"There is no file {path}: give a recipe as YAML (`base: rso` and what differs) or a "
            "Python file with RECIPE."
        )
    try:
        recipe = _of_python(path) if path.suffix == ".py" else _of_yaml(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return recipe


def _of_yaml(path: Path) -> Recipe:
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"it cannot be read as YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(values, dict) or not isinstance(values.get("base"), str):
        raise UserError(
            "it needs `base: NAME`, the recipe that it starts from, and below it the keys that "
            "differ."
        )
    return merged(recipe_named(values.pop("base")), {"name": path.stem} | values)


def _of_python(path: Path) -> Recipe:
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the name ends with .py"
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ValidationError as error:
        raise UserError(f"The recipe is not valid: {sentences(error)}.") from error
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise UserError(f"it cannot be imported ({type(error).__name__}: {error}).") from error
    found = getattr(module, "RECIPE", None)
    if not isinstance(found, Recipe):
        raise UserError(
            "it has no RECIPE: write `RECIPE = Recipe(...)`, or `RSO.model_copy(update={...})`."
        )
    return validated(_plain(found))  # model_copy validates nothing


def _plain(value: Any) -> Any:
    """With the keys that are no fields, which model_copy takes in and a dump leaves out."""
    if not isinstance(value, BaseModel) or isinstance(value, Loss):
        return value
    for key, field in type(value).model_fields.items():
        if isinstance(vars(value)[key], dict) and _is_settings(field.annotation):
            raise UserError(
                f"`{key}` is a dict in model_copy, which would set all that it does not name back "
                "to defaults: write "
                f"BASE.{key}.model_copy(update={{...}})."
            )
    return {key: _plain(one) for key, one in vars(value).items()}


def _is_settings(annotation: Any) -> bool:
    return (
        isinstance(annotation, type)
        and issubclass(annotation, BaseModel)
        and not issubclass(annotation, Loss)
    )
