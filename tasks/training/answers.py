"""The policy learns from accepted answers themselves: imitates them one by one, or ranks the lists
that they make.

    train_on_answers(policy, reference, answers, loss, training)  ->  a model version, and its
    curves as metrics
Test: pytest -m methods tests/flows/test_methods.py
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import Loaded, end_ids
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.groups import answer_ids, completions_by_id
from dapflow.tasks.step import Out, step
from dapflow.tasks.training.errors import NothingToLearnError
from dapflow.tasks.training.learn import Course, learn
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Training
from dapflow.tasks.training.work import learning

Row = Mapping[str, Any]


@step(
    "models",
    title="train with {loss.name} on answers",
    expects=lambda **_: 1,
    activity="training",
    work=lambda answers, training, **_: learning([answers], training),
)
def train_on_answers(
    out: Out,
    policy: ModelRef,
    reference: ModelRef,
    answers: DatasetRef,
    loss: Loss,
    training: Training,
    system: str | None,
    chat_template: str | None,
    seed: int,
) -> None:
    """Train a copy of `policy` on the accepted ones: each by itself where the loss takes one
    answer, else each prompt's as a list with rewards, best first."""
    if not out.pending(1):
        return
    rows = [row for row in out.lake.rows_of(answers) if row["accepted"]]
    prompts = _prompts(out.lake, rows)
    least = loss.answers
    lists = [[row] for row in rows] if least == 1 else lists_of(rows, prompts, least)
    if not lists:
        raise NothingToLearnError(
            "No answer is left to train on: none was accepted, or no prompt has enough of them "
            "for this loss (`dapflow show acceptances`)."
        )
    sampled = completions_by_id(out.lake, [row["completion_id"] for row in rows])

    def groups(loaded: Loaded) -> list[Group]:
        return list_groups(loaded, lists, prompts, sampled, system, chat_template)

    samplers = {
        row["id"]: [sampled[row["completion_id"]]["policy"]] for ranked in lists for row in ranked
    }
    course = Course(policy=policy, reference=reference, loss=loss, training=training, seed=seed)
    learn(out, course, groups, samplers)


def list_groups(
    loaded: Loaded,
    lists: Sequence[Sequence[Row]],
    prompts: Mapping[str, str],
    sampled: Mapping[str, Row],
    system: str | None,
    chat_template: str | None,
) -> list[Group]:
    """Lists of accepted answers to one prompt each as token ids. sampled: completions by id;
    prompts: texts by id.
    """
    ends = end_ids(loaded)

    def ids(row: Row) -> tuple[int, ...]:
        answer = sampled[row["completion_id"]]
        return answer_ids(loaded, ends, answer, answer["text"])

    return [
        Group(
            prompt=tuple(
                render(loaded.tokenizer, prompts[rows[0]["prompt_id"]], system, chat_template)
            ),
            answers=tuple(ids(row) for row in rows),
            row_ids=tuple(row["id"] for row in rows),
            rewards=tuple(row["reward"] for row in rows),
        )
        for rows in lists
    ]


def lists_of(rows: Sequence[Row], prompts: Mapping[str, str], least: int) -> list[list[Row]]:
    """The accepted rows of each prompt together, best first, where there are at least so many."""
    by_prompt = groupby(
        sorted(rows, key=lambda row: prompts[row["prompt_id"]]),
        key=lambda row: prompts[row["prompt_id"]],
    )
    lists = [sorted(answers, key=lambda row: -row["reward"]) for _, answers in by_prompt]
    return [answers for answers in lists if len(answers) >= least]


def _prompts(lake: Lake, rows: Sequence[Row]) -> dict[str, str]:
    versions = sorted({row["prompt_id"].rsplit("-", 1)[0] for row in rows})
    return {
        row["id"]: row["prompt"]
        for version in versions
        for row in lake.rows("SELECT id, prompt FROM prompts WHERE version = ?", [version])
    }
