"""Constraints of a prompt that a program can verify: "in two sentences", "as JSON with the key
`name`".

    constraints_of([{"rule": "sentences", "exactly": 2}], "mine.jsonl:2")  ->  (Count(...),)
    text_of(constraints)  ->  the JSON that the lake holds      of_text(text)  ->  the constraints
What each rule means for an answer: dapflow.tasks.judging.constraints. Imports neither torch nor
prefect. Test: pytest tests/tasks/prompts/test_constraints.py
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from dapflow.storage.errors import UserError

Number = Annotated[int, Field(strict=True)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Exact = Annotated[str, Field(min_length=1)]


class _Constraint(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Count(_Constraint):
    """How many sentences or words: `exactly` so many, or `at_least`, or `at_most`, or between."""

    rule: Literal["sentences", "words"]
    exactly: Annotated[Number, Field(ge=1)] | None = None
    at_least: Annotated[Number, Field(ge=1)] | None = None
    at_most: Annotated[Number, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.exactly is None and self.at_least is None and self.at_most is None:
            raise ValueError("`exactly`, `at_least` or `at_most` is missing")
        if self.exactly is not None and (self.at_least is not None or self.at_most is not None):
            raise ValueError("`exactly` goes with neither `at_least` nor `at_most`")
        if None not in (self.at_least, self.at_most) and self.lowest > self.highest:
            raise ValueError("`at_least` is more than `at_most`")
        return self

    @property
    def lowest(self) -> float:
        """The fewest that follow it."""
        return self.exactly or self.at_least or 0

    @property
    def highest(self) -> float:
        """The most that follow it."""
        return self.exactly or self.at_most or float("inf")


class Listing(_Constraint):
    """So many points with a dash or an asterisk, numbered points, or lines that are not empty."""

    rule: Literal["items", "numbered", "lines"]
    exactly: Annotated[Number, Field(ge=1)]


class Words(_Constraint):
    """Whole words that are all there, or none of which is."""

    rule: Literal["contains", "excludes"]
    words: Annotated[tuple[Text, ...], Field(min_length=1)]


class Without(_Constraint):
    """None of these characters."""

    rule: Literal["without"]
    characters: Exact


class Edge(_Constraint):
    """The text that the answer begins or ends with."""

    rule: Literal["starts_with", "ends_with"]
    text: Text


class Object(_Constraint):
    """One JSON object with exactly these keys."""

    rule: Literal["json"]
    keys: Annotated[tuple[Exact, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if len(set(self.keys)) < len(self.keys):
            raise ValueError("`keys` has the same key twice")
        return self


class Language(_Constraint):
    """The language of the answer."""

    rule: Literal["language"]
    name: Literal["English", "French", "German", "Italian", "Spanish"] = Field(alias="is")


class Form(_Constraint):
    """No capital letter, no small letter, or the whole answer in double quotation marks."""

    rule: Literal["lowercase", "uppercase", "quoted"]


_KINDS = (Count, Listing, Words, Without, Edge, Object, Language, Form)
Constraint = Annotated[
    Count | Listing | Words | Without | Edge | Object | Language | Form,
    Field(discriminator="rule"),
]
RULES = tuple(rule for kind in _KINDS for rule in get_args(kind.model_fields["rule"].annotation))
_WANTED = {
    "int_type": "be a whole number",
    "string_type": "be text",
    "string_too_short": "be text that is not empty",
    "too_short": "have something in it",
    "tuple_type": "be a list",
}
"""What a field must be, by the type of the error; pydantic's words for the others."""
_LIST = TypeAdapter(tuple[Constraint, ...])


def constraints_of(value: Any, place: str) -> tuple[Constraint, ...]:
    """The constraints that a record lists, or holds as JSON text; none where it lists none. place:
    where the record stands.

    A field that is null is none: Parquet gives every constraint the fields of all. Raises
    UserError, naming the place, for what is no constraint.
    """
    listed = _parsed(value, place)
    if not isinstance(listed, list):
        raise UserError(
            f'{place}: `constraints` must be a list such as [{{"rule": "words", "at_most": 20}}], '
            f"not {value!r:.40}."
        )
    return tuple(_constraint(one, place) for one in listed)


def text_of(constraints: Sequence[Constraint]) -> str | None:
    """The constraints as the lake holds them; None where there are none."""
    if not constraints:
        return None
    return _LIST.dump_json(tuple(constraints), by_alias=True, exclude_none=True).decode()


def of_text(text: str) -> tuple[Constraint, ...]:
    """The constraints that the lake holds."""
    return _LIST.validate_json(text)


def _parsed(value: Any, place: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: `constraints` is not valid JSON: {value!r:.60}.") from error


def _constraint(value: Any, place: str) -> Constraint:
    if not isinstance(value, dict) or not isinstance(value.get("rule"), str):
        raise UserError(
            f'{place}: a constraint must be an object with its `rule`, such as {{"rule": "words", '
            f'"at_most": 20}}, not {value!r:.60}.'
        )
    if value["rule"] not in RULES:
        raise UserError(
            f"{place}: there is no rule `{value['rule']}` of constraints: take one of "
            f"{', '.join(RULES)}."
        )
    fields = {key: field for key, field in value.items() if field is not None}
    try:
        return _LIST.validate_python([fields])[0]
    except ValidationError as error:
        what = _wrong(error.errors()[0])
        raise UserError(f"{place}: the constraint `{value['rule']}`: {what}.") from error


def _wrong(error: Any) -> str:
    """What is wrong with a constraint, as the end of a sentence."""
    key = ".".join(str(part) for part in error["loc"][2:])  # after its number and its rule
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"`{key}` is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no field `{key}`"
    if error["type"] == "value_error":
        return message
    wanted = _WANTED.get(error["type"]) or message.partition(" should ")[2]
    return f"`{key}` must {wanted}, not {error['input']!r:.40}"
