"""A recipe from plain values: `--set key=value`, the changes of a file of one's own, and where each
value of a recipe comes from.

    change(RSO, ["sampling.temperature=0.7"])        merged(RSO, {"sampling": {"temperature": 0.7}})        origins(RSO)
What is wrong is said in a sentence that names the key. Test: pytest
tests/flows/recipes/test_recipe.py
"""

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dapflow.flows.recipes.recipe import Recipe, Then
from dapflow.storage import UserError
from dapflow.tasks.judging.kinds import KINDS, kind, spec_of
from dapflow.tasks.training.losses.loss import Loss

_NAMED = {"members", "weights", "criteria", "changes"}  # their keys are the user's own names
_JUDGES = ("judge", "evaluation.judge")
"""Keys whose value is a judge: a word, or settings with their `kind`."""


def change(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `key=value` settings applied, keys dotted ("sampling.temperature=0.7"),
    values as in YAML.

    Raises UserError that names the key.
    """
    values = recipe.model_dump()
    for setting in sorted(settings, key=_depth):  # what a judge is before its settings
        key, equals, text = setting.partition("=")
        if not equals:
            raise UserError(
                f"--set {setting}: write it as key=value, for example --set "
                "sampling.temperature=0.7."
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(
                f"--set {setting}: the value cannot be read as YAML: quote it."
            ) from error
        _put(values, key.strip(), value)
    return validated(values)


def merged(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with changes, nested as in YAML or under dotted keys. Raises UserError that names
    the key.
    """
    values = recipe.model_dump()
    for key, value in _leaves(changes, recipe.model_dump()):
        _put(values, key, value)
    return validated(values)


def at(recipe: Recipe, iteration: int) -> Recipe:
    """The recipe as it is in that iteration: with the changes of its `then` from where they apply,
    and of a further `then` among them.
    """
    return (
        recipe
        if recipe.then is None or iteration < recipe.then.iteration
        else at(_later(recipe, recipe.then), iteration)
    )


def stages(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe as it begins, and as each `then` makes it."""
    yield recipe
    if recipe.then is not None:
        yield from stages(_later(recipe, recipe.then))


def _later(recipe: Recipe, then: Then) -> Recipe:
    return merged(recipe.model_copy(update={"then": None}), then.changes)


def _depth(setting: str) -> int:
    key = setting.partition("=")[0].strip().removesuffix(".kind")
    return key.count(".") if key.startswith(tuple(f"{judge}." for judge in _JUDGES)) else 0


def _leaves(changes: dict[str, Any], values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Changed keys, dotted; a loss changes as a whole, and so do values that are no settings of
    their own, and a judge that becomes one of another kind.
    """
    for key, value in changes.items():
        held = values.get(key) if isinstance(values, dict) else None
        if (
            isinstance(value, dict)
            and isinstance(held, dict)
            and key not in ("loss", "criteria", "changes")
            and value.get("kind", held.get("kind")) == held.get("kind")
        ):
            yield from _leaves(value, held, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def origins(recipe: Recipe) -> dict[str, str]:
    """Where each value of a recipe comes from, by dotted key: the recipe itself, or a default, with
    what the key is for.
    """
    return dict(_origins(recipe, "", None))


def _origins(settings: BaseModel, prefix: str, default: Any) -> Iterator[tuple[str, str]]:
    """default: what stands in the place of these settings where nobody says otherwise; where it is
    of another kind, each field's own holds.
    """
    for name, field in type(settings).model_fields.items():
        value, key = getattr(settings, name), f"{prefix}{name}"
        usual = getattr(default, name) if isinstance(default, type(settings)) else _usual(field)
        if isinstance(value, BaseModel) and not isinstance(value, Loss):
            yield from _origins(value, f"{key}.", usual)
        elif isinstance(value, Loss):
            yield key, f"recipe; {value.source}"
        else:
            own = field.is_required() or value != usual
            yield (
                key,
                f"{'recipe' if own else 'default'}{f'; {field.description}' if field.description else ''}",
            )


def _usual(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def validated(values: dict[str, Any]) -> Recipe:
    """A recipe from plain values. Raises UserError with one sentence that names the fields."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(f"The recipe is not valid: {sentences(error)}.") from error
    if recipe.then is not None:
        if "policy" in recipe.then.changes:
            raise UserError(
                "then.changes: `policy` is the initial one in every iteration; `init` says which "
                "weights an iteration starts from."
            )
        try:
            at(recipe, recipe.then.iteration)
        except UserError as error:
            raise UserError(f"then.changes: {error}") from error
    return recipe


def sentences(error: ValidationError) -> str:
    """What is wrong with some settings, by the names of the fields."""
    return "; ".join(filter(None, map(_sentence, error.errors())))


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    if key in [f"{judge}.kind" for judge in _JUDGES]:
        key = key.removesuffix(".kind")
    *path, last = key.split(".")
    place: Any = values
    if path[:1] == ["loss"] and isinstance(values["loss"], list):
        _term(values["loss"], path[1:])[last] = value
        return
    for depth, part in enumerate([*path, last]):
        named = path == ["loss"] or (depth == len(path) and set(path[-1:]) <= _NAMED and bool(path))
        if not isinstance(place, dict) or (part not in place and not named):
            raise UserError(_unknown(values, ".".join(key.split(".")[: depth + 1])))
        if depth < len(path):
            place = place[part]
    if key in _JUDGES:
        value = _judge_values(value)
    place[last] = _loss_values(value) if key == "loss" else value


def _loss_values(value: Any) -> Any:
    """A loss, or each of a sum, as a name with options, which further keys can change."""
    if isinstance(value, list):
        return [_loss_values(term) for term in value]
    return {"name": value} if isinstance(value, str) else value


def _term(terms: Sequence[Any], path: Sequence[str]) -> dict[str, Any]:
    """The term of a sum of losses that a key names: `loss.nll.weight`."""
    named = {str(term.get("name")): term for term in terms if isinstance(term, dict)}
    wanted = {name.replace("-", "_"): term for name, term in named.items()}
    if len(path) != 1 or path[0].replace("-", "_") not in wanted:
        raise UserError(
            f"The loss is a sum of {' and '.join(named)}: write loss.NAME.OPTION, such as "
            f"loss.{list(named)[-1]}.weight."
        )
    return wanted[path[0].replace("-", "_")]


def _judge_values(value: Any) -> Any:
    """A judge as all the settings of its kind, which further keys can change."""
    if isinstance(value, str) and value not in KINDS and value != "none":
        return spec_of(value).model_dump()
    settings = {"kind": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or settings.get("kind") not in KINDS:
        return value  # validation says what is wrong with it
    judge = kind(settings["kind"])
    usual = dict.fromkeys(judge.model_fields) | judge.model_construct().model_dump()
    return _over(usual, settings)  # what then still is None, validation asks for


def _over(usual: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, and where they say nothing the usual ones, below each other."""
    return usual | {
        key: _over(usual[key], value)
        if isinstance(value, dict) and isinstance(usual.get(key), dict)
        else value
        for key, value in settings.items()
    }


def _unknown(values: dict[str, Any], key: str) -> str:
    last = key.rpartition(".")[2]
    for judge in _JUDGES:
        if key.startswith(f"{judge}.") and (of := _kinds_with(key.removeprefix(f"{judge}."))):
            return f"`{key}` is a setting of another kind of judge: set {judge}.kind={of} too."
    near = (
        [last]
        if last in values
        else difflib.get_close_matches(key, list(_keys(values)), n=1, cutoff=0.5)
    )
    hint = f"did you mean `{near[0]}`?" if near else "`dapflow recipes NAME` prints all keys."
    return f"A recipe has no key `{key}`: {hint}"


def _kinds_with(setting: str) -> str:
    """The kinds of judges that have such a setting."""
    name = setting.partition(".")[0]
    return " or ".join(of for of in KINDS if name in kind(of).model_fields)


def _keys(values: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in values.items():
        found += [
            prefix + key,
            *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []),
        ]
    return found


def _sentence(error: Any) -> str:
    loc = error["loc"]
    key = ".".join(str(part) for part in loc)
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"there is no key `{key}`"
    if error["type"] == "missing":
        return f"`{key}` is missing"
    if error["type"] == "too_short" and error["input"]:
        return ""  # its items have been complained of one by one
    wanted = re.sub(r"^[A-Z][a-z]+ should ", "must ", message)
    if error["type"] == "tuple_type":
        wanted = f"must be a list, such as [{error['input']}]"
    return (
        f"`{key}` {wanted}, not {error['input']!r}"
        if error["type"] != "value_error"
        else f"`{key}`: {message}"
        if key
        else message
    )
