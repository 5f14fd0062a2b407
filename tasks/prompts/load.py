"""Prompts enter the lake: split once and for all by content, duplicates left out.

load_prompts(source="shipped", ...)  ->  prompts
"""

from collections.abc import Sequence
from typing import Any

from dapflow.storage import UserError
from dapflow.storage.rows import Split
from dapflow.tasks.prompts.columns import check_columns
from dapflow.tasks.prompts.constraints import constraints_of, text_of
from dapflow.tasks.prompts.conversations import one_turn
from dapflow.tasks.prompts.row import prompt_row, text_digest
from dapflow.tasks.prompts.sources import Record, read_source
from dapflow.tasks.step import Out, step

PROMPTS_FILE, SEEDS_FILE = "prompts.jsonl", "seed_tasks.jsonl"


@step(
    "prompts",
    title="load {split} prompts",
    expects=lambda count, held_out, **_: count or held_out,
    activity="loading",
)
def load_prompts(
    out: Out,
    source: str,
    digest: str,
    split: Split,
    held_out: int,
    first: int = 0,
    count: int | None = None,
    shipped: str = PROMPTS_FILE,
) -> None:
    """Prompts of one split of a source: `count` of them from place `first` on, around the end
    (None: all).

    `digest`: of the source's content, so that a changed file is another version; `shipped`: the
    file that the source of this name is. Raises UserError for a source that is too small.
    """
    whole = read_source(source, shipped)
    tags = {record.place: prompt_tags(record) for record in whole}  # also those of later iterations
    records = split_prompts(whole, held_out)[split]
    chosen = (
        records
        if count is None
        else [
            records[(first + offset) % len(records)] for offset in range(min(count, len(records)))
        ]
    )
    rows = [
        prompt_row(out.row_id(n), prompt_text(record), record.place, split=split)
        | tags[record.place]
        for n, record in enumerate(chosen)
    ]
    out.write(0, rows)


def prompt_text(record: Record) -> str:
    """The user's turn of a record, with Alpaca's `input`. Raises UserError, naming the record,
    where columns say more, or others speak.
    """
    text = one_turn(record)
    check_columns(record.fields, text, record.place)
    return text


def prompt_tags(record: Record) -> dict[str, Any]:
    """What judges may want to know of a prompt: the right `answer` (text or a number), whether it
    is marked `unsafe`, and its `constraints`. Null: not said.

    Raises UserError, naming the record, for what is none of them.
    """
    answer, unsafe = record.fields.get("answer"), record.fields.get("unsafe")
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise UserError(
            f"{record.place}: `answer` must be the right answer as text or a number, not "
            f"{answer!r}."
        )
    if unsafe is not None and not isinstance(unsafe, bool):
        raise UserError(f"{record.place}: `unsafe` must be true or false, not {unsafe!r}.")
    listed = record.fields.get("constraints")
    constraints = None if listed is None else text_of(constraints_of(listed, record.place))
    return {"answer": answer, "unsafe": unsafe, "constraints": constraints}


def split_prompts(records: Sequence[Record], held_out: int) -> dict[Split, list[Record]]:
    """Split by content: the `held_out` prompts with the smallest digests are kept aside, the others
    stay in their order.

    Raises UserError when nothing would be left to train on.
    """
    unique = {prompt_text(record): record for record in reversed(records)}
    if len(unique) <= held_out:
        raise UserError(
            f"There are {len(unique)} different prompts and {held_out} are to be held out: give "
            "more prompts, or set prompts.held_out lower."
        )
    aside = set(sorted(unique, key=text_digest)[:held_out])
    return {
        "train": [record for text, record in reversed(unique.items()) if text not in aside],
        "held_out": [record for text, record in reversed(unique.items()) if text in aside],
    }
