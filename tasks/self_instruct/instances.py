"""Instances of tasks, made by a policy, for the training on what it made itself (Self-Instruct,
arXiv 2212.10560, section 2.2).

    generate_instances(policy, prompts, Instances(), seed, sampler)  ->  pairs: prompt (task and input), chosen (output), no rejected
Four steps: is the task a classification? -> what is said -> output-first or input-first -> what is
made; all sampled as completions are. Test: pytest tests/tasks/self_instruct/test_instances.py
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.tasks.prompts.load import SEEDS_FILE, text_digest
from dapflow.tasks.prompts.sources import Record, find_source, read_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import generator
from dapflow.tasks.self_instruct.instance_text import (
    Example,
    faults,
    kind_question,
    read_instances,
    read_kind,
    request,
)
from dapflow.tasks.step import Out, step


class Instances(BaseModel):
    """How instances are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    examples: str = Field(
        default="shipped",
        description="tasks that show how: a file with `instruction`, `instances` and `is_classification`",
    )
    of_each_kind: int = Field(
        default=6,
        ge=1,
        description="tasks shown with the question whether one is a classification, of each answer",
    )
    shown: int = Field(default=3, ge=1, description="tasks shown with a request for instances")
    most: int = Field(default=5, ge=1, description="instances of a task that are kept")
    sampling: Sampling = Field(
        default=Sampling(n=1, temperature=0, max_tokens=350, stop=("\nTask:",))
    )


def generate_instances(
    policy: ModelRef, prompts: DatasetRef, settings: Instances, seed: int, sampler: Sampler
) -> DatasetRef:
    """Instances of the tasks in `prompts`. What the policy was asked and said is in the lake like
    all completions.

    Raises UserError for a file of examples that has none of one kind.
    """
    source = find_source(settings.examples, SEEDS_FILE)
    questions = ask_for_kinds(prompts, source.name, source.digest, settings.of_each_kind)
    answer = settings.sampling.model_copy(update={"n": 1, "max_tokens": 4, "stop": ()})
    kinds = sample(policy, questions, answer, seed, sampler)
    requests = ask_for_instances(
        prompts, kinds, questions, source.name, source.digest, settings.shown
    )
    return read_replies(
        prompts, requests, sample(policy, requests, settings.sampling, seed, sampler), settings.most
    )


@step(
    "prompts",
    title="questions on the kind of {prompts.rows} tasks",
    expects=lambda prompts, **_: prompts.rows,
    activity="arranging",
)
def ask_for_kinds(
    out: Out, prompts: DatasetRef, source: str, digest: str, of_each_kind: int
) -> None:
    """Whether each task is a classification, asked after `of_each_kind` examples of both answers,
    in an order of chance.
    """
    examples = _examples(source)
    shown = [one for kind in (True, False) for one in _some(examples, kind, of_each_kind, source)]
    generator("kinds").shuffle(shown)
    _write(
        out,
        [
            (row, kind_question(shown, row["prompt"]), row["source"])
            for row in out.lake.rows_of(prompts)
        ],
    )


@step(
    "prompts",
    title="requests for instances of {prompts.rows} tasks",
    expects=lambda prompts, **_: prompts.rows,
    activity="arranging",
)
def ask_for_instances(
    out: Out,
    prompts: DatasetRef,
    kinds: DatasetRef,
    questions: DatasetRef,
    source: str,
    digest: str,
    shown: int,
) -> None:
    """A request for instances of each task whose kind could be read; `source` says in which order."""
    examples, said = (
        _examples(source),
        {row["prompt_id"]: row["text"] for row in out.lake.rows_of(kinds)},
    )
    texts = list[tuple[dict[str, Any], str, str]]()
    for row, question in zip(out.lake.rows_of(prompts), out.lake.rows_of(questions), strict=True):
        if (order := read_kind(said[question["id"]])) is not None:
            some = _some(examples, order == "output-first", shown, source)
            texts.append((row, request(order, some, row["prompt"]), order))
    if not texts:
        raise UserError(
            "The policy has said of no task whether it is a classification (Yes or No): take another one to make instances."
        )
    _write(out, texts)


@step(
    "pairs",
    title="instances in {replies.rows} replies",
    expects=lambda replies, most, **_: replies.rows * most,
    activity="reading",
)
def read_replies(
    out: Out, prompts: DatasetRef, requests: DatasetRef, replies: DatasetRef, most: int
) -> None:
    """The instances in the replies, those that cannot be used with the reason; a task without any
    has one row, dropped as invalid.
    """
    asked, said = (
        {row["parents"][0]: row for row in out.lake.rows_of(requests)},
        defaultdict[str, list[dict[str, Any]]](list),
    )
    for reply in out.lake.rows_of(replies):
        said[reply["prompt_id"]].append(reply)
    rows = list[dict[str, Any]]()
    for task in out.lake.rows_of(prompts):
        before = len(rows)
        for reply in said[asked[task["id"]]["id"]] if task["id"] in asked else []:
            made = read_instances(asked[task["id"]]["source"], reply["text"])
            for (taken, given), reason in zip(
                made, faults(made, reply["finish_reason"] != "stop", most), strict=True
            ):
                prompt = f"{task['prompt']}\n\n{taken}" if taken else task["prompt"]
                row = {
                    "id": out.row_id(len(rows)),
                    "prompt_id": task["id"],
                    "prompt": prompt,
                    "chosen": given,
                }
                rows.append(row | {"source": reply["id"], "dropped": reason})
        if len(rows) == before:
            rows.append(
                {
                    "id": out.row_id(before),
                    "prompt_id": task["id"],
                    "prompt": task["prompt"],
                    "dropped": "invalid",
                }
            )
    out.write(0, rows)


def _write(out: Out, texts: Sequence[tuple[dict[str, Any], str, str]]) -> None:
    out.write(
        0,
        [
            {
                "id": out.row_id(n),
                "digest": text_digest(text),
                "prompt": text,
                "source": source,
                "split": "train",
                "parents": [row["id"]],
            }
            for n, (row, text, source) in enumerate(texts)
        ],
    )


def _examples(source: str) -> list[Example]:
    return [_example(record) for record in read_source(source, SEEDS_FILE)]


def _example(record: Record) -> Example:
    classification, instances = (
        record.fields.get("is_classification"),
        record.fields.get("instances"),
    )
    try:
        pairs = [(str(one.get("input") or ""), str(one["output"])) for one in instances or ()]
    except (TypeError, KeyError, AttributeError):
        pairs = []
    if not pairs or not isinstance(classification, bool):
        raise UserError(
            f"{record.place}: needs `instances`, a list with `input` and `output` each, and `is_classification`, true or false."
        )
    return Example(
        instruction=record.text("instruction"), instances=pairs, classification=classification
    )


def _some(
    examples: Sequence[Example], classification: bool, count: int, source: str
) -> list[Example]:
    """As many examples of one kind, the same for every task."""
    of_kind = [one for one in examples if one.classification == classification]
    if not of_kind:
        raise UserError(
            f"{source} has no task that is {'a' if classification else 'no'} classification: it needs some of both."
        )
    return generator("examples", int(classification), count).sample(
        of_kind, min(count, len(of_kind))
    )
