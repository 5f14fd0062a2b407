"""The usual forms of preference data, read record by record into the columns of `pairs`.

pairs            `prompt` (or `instruction` with `input`), `chosen`, `rejected`, as text or as messages; or whole conversations `chosen` and
                 `rejected`
hh               transcripts `chosen` and `rejected` ("\\n\\nHuman: ...\\n\\nAssistant: ...") that differ in the last answer
ultrafeedback    `instruction` and `completions` with `response`, ratings by aspect and `overall_score`: the best against the worst
A row that nothing can be learned from is kept with the reason in `dropped` (REASONS); what is of no
such form is refused by its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from dapflow.storage import UserError
from dapflow.tasks.prompts.columns import check_columns
from dapflow.tasks.prompts.conversations import (
    WHY,
    Turn,
    essential,
    prompt_turns,
    shown,
    transcript,
    turns_of,
    why_left_out,
)
from dapflow.tasks.prompts.scores import best_and_worst, margin_of
from dapflow.tasks.prompts.sources import Record

Format = Literal["auto", "pairs", "hh", "ultrafeedback"]
RATINGS = (
    "significantly",
    "better",
    "slightly",
    "negligible",
)  # how much better the chosen one is (Llama 2, arXiv 2307.09288, section 3.2.1)
REASONS = WHY | {
    "identical": "its two answers are the same",
    "empty": "its prompt or an answer is empty",
    "different_prompts": "its answers are to different prompts",
    "tie": "its scores are level",
    "contradicted": "its scores say that the rejected answer is the better one",
    "infinite_scores": "a score of it is infinite",
    "doubtful_scores": "its overall scores and its ratings by aspect contradict one another",
    "unscored": "it has fewer than two answers with a text and a score",
}  # why a row of a file is left out
_FORM = ("different_prompts", "unscored", *WHY)  # reasons that leave the answers without a meaning
_NOTHING_TO_LEARN = ("identical", "empty", "tie")  # of a file that was understood
_SIDES = ("chosen", "rejected")


def preference(record: Record, form: Format = "auto") -> dict[str, Any]:
    """The columns of `pairs` that a record fills. Raises UserError that names the record when it is
    not of that form.
    """
    form = _form(record) if form == "auto" else form
    row = _scored(record) if form == "ultrafeedback" else _pair(record, form)
    for name in ("prompt", *_SIDES):
        try:
            row[name].encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{record.place}: `{name}` holds half a character "
                f"(\\u{ord(error.object[error.start]):04x}): remove it."
            ) from error
    given = record.fields.get("dropped")
    dropped = given if isinstance(given, str) else _useless(row) or row["dropped"]
    if dropped is None:
        check_columns(record.fields, row["prompt"], record.place)
    return row | {"source": record.place, "rating": _rating(record), "dropped": dropped}


def check_left_out(what: str, reasons: Mapping[str | None, int], first: str) -> None:
    """Raise UserError where every row is left out, and not only for equal or empty answers. first:
    the place of the first row.
    """
    misread = {
        reason for reason in reasons if reason in REASONS and reason not in _NOTHING_TO_LEARN
    }
    if None not in reasons and misread:
        told = "; ".join(
            f"{count:,} as {reason} ({REASONS.get(reason or '', 'as the file says')})"
            for reason, count in reasons.items()
        )
        raise UserError(
            f"{first}: nothing of {what} can be learned from: every row is left out, {told}. It "
            "needs rows with a prompt of one turn,"
            " two different answers to it, and no scores that say the opposite."
        )


def _useless(row: Mapping[str, Any]) -> str | None:
    if row["dropped"] in _FORM:
        return row["dropped"]
    if not all(row[name].strip() for name in ("prompt", *_SIDES)):
        return "empty"
    return "identical" if row["chosen"] == row["rejected"] else None


def _rating(record: Record) -> str | None:
    rating = record.fields.get("rating")
    if rating is not None and rating not in RATINGS:
        raise UserError(
            f"{record.place}: `rating` must be one of {', '.join(RATINGS)}, not {rating!r}."
        )
    return rating


def _form(record: Record) -> Format:
    if isinstance(record.fields.get("completions"), list):
        return "ultrafeedback"
    if any(record.fields.get(name) is not None for name in ("prompt", "instruction")):
        return "pairs"
    texts = [record.fields.get(name) for name in _SIDES]
    return (
        "hh"
        if any(isinstance(text, str) and text.lstrip().startswith("Human:") for text in texts)
        else "pairs"
    )


def _pair(record: Record, form: Format) -> dict[str, Any]:
    sides = [
        _transcript(record, name) if form == "hh" else _answer(record, name) for name in _SIDES
    ]
    alone = all(
        len(turns) <= 1 and turns[:1] == [("assistant", text) for _, text in turns]
        for turns in sides
    )
    given = any(record.fields.get(name) is not None for name in ("prompt", "instruction"))
    prompt = essential(prompt_turns(record)) if form != "hh" and (given or alone) else None
    (before, chosen), (other, rejected) = (
        _before_and_answer(_whole(prompt, turns)) for turns in sides
    )
    if all(turns and turns[-1][0] != "assistant" for turns in sides):
        raise UserError(
            f"{record.place}: `chosen` must be a transcript that begins with `Human:` and ends "
            "with an answer of `Assistant:`."
            if form == "hh"
            else f"{record.place}: `chosen` and `rejected` must be the same conversation with one last message of the assistant each."
        )
    before, other = (
        before or ([] if chosen.strip() else other),
        other or ([] if rejected.strip() else before),
    )  # null in place of a conversation
    margin, reason = margin_of(record.fields)
    reason = _why_no_prompt(prompt, before, other) or reason
    return {
        "prompt": shown(before),
        "chosen": chosen,
        "rejected": rejected,
        "margin": margin,
        "dropped": reason,
    }


def _why_no_prompt(
    prompt: Sequence[Turn] | None, before: list[Turn], other: list[Turn]
) -> str | None:
    """Why what stands before the two answers is not one prompt. prompt: what the record says it is,
    if it does.
    """
    if _plain(before) != _plain(other):
        return "different_prompts"
    reason = why_left_out(before) or why_left_out(prompt or [])
    return reason or ("different_prompts" if prompt and _plain(before) != _plain(prompt) else None)


def _whole(prompt: Sequence[Turn] | None, turns: list[Turn]) -> list[Turn]:
    """The conversation with its answer: as it is where it begins itself (also as a transcript that
    the prompt is part of), else after the prompt."""
    if prompt is None or (turns and turns[0][0] != "assistant"):
        return turns
    whole = transcript(turns[0][1]) if len(turns) == 1 else None
    return whole if whole and set(_plain(prompt)) & set(_plain(whole[:-1])) else [*prompt, *turns]


def _before_and_answer(turns: list[Turn]) -> tuple[list[Turn], str]:
    answered = bool(turns) and turns[-1][0] == "assistant"
    return (essential(turns[:-1]), turns[-1][1]) if answered else (essential(turns), "")


def _plain(turns: Sequence[Turn]) -> list[Turn]:
    return [(role, text.strip()) for role, text in turns]


def _answer(record: Record, name: str) -> list[Turn]:
    value = record.fields.get(name)
    if name not in record.fields:
        record.text(name)  # which says that there is none
    if value is None or isinstance(value, str):
        return [("assistant", value or "")]
    return turns_of(value, name, record.place)


def _transcript(record: Record, name: str) -> list[Turn]:
    value = record.fields.get(name)
    if name not in record.fields or value is None or (isinstance(value, str) and not value.strip()):
        return _answer(record, name)
    human = isinstance(value, str) and value.lstrip().startswith("Human:")
    turns = transcript(value) or [("user", value.strip())] if human else None
    if turns is None:
        raise UserError(
            f"{record.place}: `{name}` must be a transcript that begins with `Human:` and ends "
            "with an answer of `Assistant:`."
        )
    return turns


def _scored(record: Record) -> dict[str, Any]:
    completions = record.fields.get("completions")
    if not isinstance(completions, list) or not all(
        isinstance(each, Mapping) for each in completions
    ):
        raise UserError(
            f"{record.place}: `completions` must be a list of answers with `response` and "
            "`overall_score`."
        )
    turns = essential(prompt_turns(record))
    best, worst, margin, reason = best_and_worst(completions)
    return {
        "prompt": shown(turns),
        "chosen": best,
        "rejected": worst,
        "margin": margin,
        "dropped": why_left_out(turns) or reason,
    }
