"""The kinds of judges, each with its class: a new kind is a line here, and a file.

    spec_of("shorter")   spec_of({"kind": "llm", "endpoint": {"model": "gpt-4.1-mini"}})
Classes are imported when they are asked for: what a step imports decides its version, and verdicts
of one kind of judge are none of another's business. Test: pytest tests/tasks/judging/test_kinds.py
"""

from importlib import import_module
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from dapflow.tasks.judging.spec import JudgeSpec

_HERE = "dapflow.tasks.judging.judges"
KINDS = {
    "reward-model": f"{_HERE}.reward_model:RewardModel",
    "lake-model": f"{_HERE}.lake_model:LakeModel",
    "llm": f"{_HERE}.llm:LLM",
    "policy": f"{_HERE}.policy:SelfJudge",
    "human": f"{_HERE}.human:Human",
    "composite": f"{_HERE}.composite:Composite",
    "program": f"{_HERE}.program:Program",
    "follows": f"{_HERE}.follows:Follows",
}
_PREFIXES = {"models@": "lake-model"}
"""Words that begin so are of that kind; a kind's own name stands for it without settings; and any
other word names a program."""


def kind(name: str) -> type[JudgeSpec]:
    """The class of a kind. Raises ValueError for a kind that there is not."""
    if name not in KINDS:
        raise ValueError(f"there is no kind of judge `{name}`: kind is one of {', '.join(KINDS)}")
    module, _, found = KINDS[name].partition(":")
    return getattr(import_module(module), found)


def spec_of(value: Any) -> Any:
    """The judge that a word or plain values stand for; anything else as it is."""
    if isinstance(value, str):
        return _of_word(value)
    if isinstance(value, dict):
        if not isinstance(name := value.get("kind"), str):
            raise ValueError(f"a judge with settings needs its kind: one of {', '.join(KINDS)}")
        return kind(name).model_validate(value)
    return value


def _of_word(word: str) -> JudgeSpec:
    if word in KINDS:
        return kind(word).model_validate({"kind": word})
    of_prefix = (name for prefix, name in _PREFIXES.items() if word.startswith(prefix))
    return kind(next(of_prefix, "program")).of_word(word)


AnyJudge = Annotated[SerializeAsAny[JudgeSpec], BeforeValidator(spec_of)]
"""A field that holds a judge of any kind."""
