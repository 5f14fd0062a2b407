"""What a policy is asked for instances of a task (an input and the output to it), and how its reply
is read.

A task with few possible answers is asked for output-first: input-first a policy would mostly make
inputs of one label (Self-Instruct, arXiv 2212.10560, section 2.2, filters as in
prepare_for_finetuning.py). Test: pytest tests/tasks/self_instruct/test_instance_text.py
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dapflow.tasks.self_instruct.listing import one_line

Order = Literal["output-first", "input-first"]
_KIND = "Does the task ask to choose from a few labels that are known beforehand? Answer Yes or No."
_LABELS = "For each task give a label that can be the answer, and then an input to which it is; go through the labels one by one."
_EXAMPLES = (
    "For each task give examples: an input, where the task needs one, and then the output to it."
)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_EXAMPLE = re.compile(r"(?:^|\n)\s*Example\s+\d+\W*(?=\n|$)")
_LABEL = re.compile(r"(?:^|\n)\s*Label:")
_PARTS = re.compile(r"\s*(?:Input:(?P<input>.*?)\n\s*)?Output:(?P<output>.*)", re.DOTALL)
_NO_INPUT = frozenset({"", "none", "(none)", "n/a", "no input"})


@dataclass(frozen=True, kw_only=True)
class Example:
    """A task with instances, (input, output) each; the input may be empty."""

    instruction: str
    instances: Sequence[tuple[str, str]]
    classification: bool


def kind_question(shown: Sequence[Example], instruction: str) -> str:
    """The question whether a task is a classification."""
    lines = [
        f"Task: {one_line(one.instruction)}\nAnswer: {'Yes' if one.classification else 'No'}\n"
        for one in shown
    ]
    return "\n".join([_KIND, "", *lines, f"Task: {one_line(instruction)}\nAnswer:"])


def read_kind(reply: str) -> Order | None:
    """How instances of the task are asked for, or None where the reply says neither."""
    said = _YES_OR_NO.match(reply)
    return None if said is None else "output-first" if said[1].lower() == "yes" else "input-first"


def request(order: Order, shown: Sequence[Example], instruction: str) -> str:
    """The request for instances of a task, after examples of how it is done."""
    done = [f"Task: {one_line(one.instruction)}\n{_written(order, one)}\n" for one in shown]
    return "\n".join(
        [
            _LABELS if order == "output-first" else _EXAMPLES,
            "",
            *done,
            f"Task: {one_line(instruction)}\n",
        ]
    )


def _written(order: Order, one: Example) -> str:
    if order == "output-first":
        return "\n".join(f"Label: {given}\nInput: {taken}" for taken, given in one.instances)
    inputs = [f"Input: {taken}\n" if taken else "" for taken, _ in one.instances]
    return "\n".join(
        f"Example {n}\n{taken}Output: {given}"
        for n, (taken, (_, given)) in enumerate(zip(inputs, one.instances, strict=True), 1)
    )


def read_instances(order: Order, reply: str) -> list[tuple[str, str]]:
    """(input, output) of each instance in a reply, in its order."""
    found = list[tuple[str, str]]()
    if order == "output-first":
        for piece in _LABEL.split(reply)[1:]:
            label, _, rest = piece.strip().partition("\n")
            found.append((_input(rest.strip().removeprefix("Input:")), label.strip()))
        return found
    for piece in _EXAMPLE.split(reply):
        if parts := _PARTS.match(piece):
            found.append((_input(parts["input"] or ""), parts["output"].strip()))
    return found


def faults(instances: Sequence[tuple[str, str]], truncated: bool, most: int) -> list[str | None]:
    """Of each instance why it cannot be used, or None. truncated: the reply was cut off, and with
    it the last.
    """
    outputs = Counter(taken for taken, _ in set(instances) if taken)
    if any(count > 1 for count in outputs.values()):
        return ["conflicting"] * len(
            instances
        )  # one input, two outputs: the policy does not know the task
    reasons, seen = list[str | None](), set[tuple[str, str]]()
    for place, one in enumerate(instances):
        cut = truncated and place == len(instances) - 1
        reason = "truncated" if cut else "duplicate" if one in seen else _fault(*one)
        reasons.append(reason or ("too_many" if reasons.count(None) == most else None))
        seen.add(one)
    return reasons


def _fault(taken: str, given: str) -> str | None:
    if not given:
        return "empty"
    if taken == given:
        return "identical"
    return "unfinished" if given.endswith(":") or taken.endswith(":") else None


def _input(text: str) -> str:
    return "" if text.strip().lower() in _NO_INPUT else text.strip()
