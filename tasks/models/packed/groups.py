"""Pairs and answers as token ids: those that were sampled, where the sampler told them, and not the
text tokenised again.

Test: pytest tests/tasks/training/test_train.py
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dapflow.storage import Lake
from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import Loaded, end_ids
from dapflow.tasks.models.packed.batches import Group

SIDES = ("chosen", "rejected")


def pair_groups(
    policy: Loaded,
    pairs: Sequence[Mapping[str, Any]],
    sampled: Mapping[str, Mapping[str, Any]],
    system: str | None,
    chat_template: str | None = None,
) -> list[Group]:
    """Pairs as token ids: those that were sampled, where the sampler told them, not the text
    tokenised again.

    sampled: token_ids and finish_reason by completion id.
    """
    ends = end_ids(policy)

    def ids(row: Mapping[str, Any], side: str) -> tuple[int, ...]:
        answer = (
            sampled[row[f"{side}_id"]]
            if row[f"{side}_id"]
            else {"token_ids": [], "finish_reason": "stop"}
        )
        return answer_ids(policy, ends, answer, row[side])

    return [
        Group(
            prompt=tuple(render(policy.tokenizer, row["prompt"], system, chat_template)),
            answers=tuple(ids(row, side) for side in SIDES if row[side] is not None),
            row_ids=(row["id"],),
            preference=row["probability"],
        )
        for row in pairs
    ]


def sampled_of(lake: Lake, pairs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The completions that the pairs are made of, by id."""
    return completions_by_id(
        lake, [one for row in pairs for side in SIDES if (one := row[f"{side}_id"])]
    )


def answer_ids(
    policy: Loaded, ends: set[int], answer: Mapping[str, Any], text: str
) -> tuple[int, ...]:
    """An answer as it was sampled, or its text as token ids.

    One that a stop string ended is trained as it was judged: its text up to there, and its end.
    """
    told = answer["token_ids"]
    if told and (answer["finish_reason"] == "length" or told[-1] in ends):
        return tuple(told)
    ended = (policy.tokenizer.eos_token_id,) if answer["finish_reason"] == "stop" else ()
    return (*policy.tokenizer(text, add_special_tokens=False)["input_ids"], *ended)


def completions_by_id(lake: Lake, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The completions of the versions that these are of, by id."""
    versions = sorted({one.rsplit("-", 1)[0] for one in ids})
    query = "SELECT id, policy, text, token_ids, finish_reason FROM completions WHERE version = ?"
    return {row["id"]: row for version in versions for row in lake.rows(query, [version])}
