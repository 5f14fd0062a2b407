"""People's own answers as completions, beside which a policy's samples can be judged, or against
which they lose.

    load_preference_prompts(source, ...)  ->  prompts
    load_preference_answers(prompts, source, ...)    ->  completions that nobody sampled
    pair_with_gold(prompts, gold, completions)  ->  pairs
Test: pytest -m methods tests/flows/test_methods.py
"""

from typing import Any, Literal

from dapflow.storage import DatasetRef, UserError
from dapflow.tasks.prompts.preferences import Part, rows_of_part, say_left_out
from dapflow.tasks.prompts.row import prompt_row, text_digest
from dapflow.tasks.prompts.work import preference_answers, preference_prompts
from dapflow.tasks.step import Contents, Out, Work, contents_of, step

Sides = Literal["chosen", "both"]


@step(
    "prompts",
    title="load the prompts of preferences ({part})",
    expects=lambda count, **_: count,
    activity="loading",
    work=lambda source, digest, count, **_: preference_prompts(source, digest, count),
)
def load_preference_prompts(
    out: Out, source: str, digest: str, part: Part, first: int, count: int, left_out: DatasetRef
) -> None:
    """The prompts of one part of a preferences source, each once: `count` of them from place
    `first` on, around the end.

    left_out: prompts that are measured on, and so never trained on.
    """
    aside = {row["digest"] for row in out.lake.prompts(left_out)}
    preferences = rows_of_part(source, part)
    say_left_out(out, source, preferences)
    rows = {row["prompt"]: row for row in preferences if row["dropped"] is None}
    prompts = [text for text in rows if text_digest(text) not in aside]
    if not prompts:
        raise UserError(
            f"{source} has no prompts to train on for the part `{part}`: it needs at least about "
            "20 pairs."
        )
    chosen = [
        prompts[(first + offset) % len(prompts)] for offset in range(min(count, len(prompts)))
    ]
    out.write(
        0,
        [
            prompt_row(out.row_id(n), text, rows[text]["source"], split="train")
            for n, text in enumerate(chosen)
        ],
    )


@step(
    "completions",
    title="load people's answers ({sides})",
    expects=lambda prompts, sides, **_: prompts.rows * (1 + (sides == "both")),
    activity="loading",
    work=lambda prompts, source, digest, sides, **_: preference_answers(
        source, digest, prompts, 1 + (sides == "both")
    ),
)
def load_preference_answers(
    out: Out, prompts: DatasetRef, source: str, digest: str, part: Part, sides: Sides
) -> None:
    """The chosen answer to each prompt, or the chosen and the rejected, once each: finished,
    without token ids, sampled by no policy.
    """
    names = ("chosen", "rejected") if sides == "both" else ("chosen",)
    answers: dict[str, list[str]] = {}
    for row in rows_of_part(source, part):
        if row["dropped"] is None:
            answers.setdefault(row["prompt"], []).extend(row[name] for name in names)
    rows: list[dict[str, Any]] = []
    for prompt in out.lake.prompts(prompts):
        texts = dict.fromkeys(answers[prompt["prompt"]])
        rows += [
            {"prompt_id": prompt["id"], "sample": sample, "text": text}
            for sample, text in enumerate(texts)
        ]
    fixed = {"token_ids": [], "logprobs": [], "finish_reason": "stop"}
    out.write(0, [{"id": out.row_id(n), **row, **fixed} for n, row in enumerate(rows)])


@step(
    "pairs",
    title="pair {completions.rows} samples with people's answers",
    expects=lambda completions, **_: completions.rows,
    activity="pairing",
    work=lambda gold, completions, **_: Work(
        makes=Contents.of_pairs(completions.rows, contents_of(gold), contents_of(completions))
    ),
)
def pair_with_gold(
    out: Out, prompts: DatasetRef, gold: DatasetRef, completions: DatasetRef
) -> None:
    """A pair for each sample: people's answer is chosen, the sample rejected (SPIN, arXiv
    2401.01335, algorithm 1).
    """
    texts = {row["id"]: row["prompt"] for row in out.lake.prompts(prompts)}
    people = {
        row["prompt_id"]: row for row in reversed(out.lake.completions(gold))
    }  # the first of several
    rows: list[dict[str, Any]] = []
    for sample in out.lake.completions(completions):
        chosen = people[sample["prompt_id"]]
        empty = not sample["text"].strip()
        dropped = "refused" if sample["finish_reason"] == "refused" else "empty" if empty else None
        dropped = "identical" if sample["text"] == chosen["text"] else dropped
        rows.append(
            {
                "prompt_id": sample["prompt_id"],
                "prompt": texts[sample["prompt_id"]],
                "source": "gold",
                "dropped": dropped,
            }
            | {
                "chosen_id": chosen["id"],
                "chosen": chosen["text"],
                "rejected_id": sample["id"],
                "rejected": sample["text"],
            }
        )
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])
