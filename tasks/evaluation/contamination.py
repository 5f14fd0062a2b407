"""Which held-out prompts the policy has met in training: they would measure memory, so the
evaluation leaves them out.

    find_overlap(held_out, pairs)  ->  metrics: a row for each prompt that resembles a training prompt, and how many there are
A prompt is left out when one of these holds; words are compared in lower case, without punctuation:
    13 words in a row are those of training prompts               (GPT-3, arXiv 2005.14165, appendix C)
    70 % of its runs of 8 words are those of training prompts     (PaLM, arXiv 2204.02311, section 8)
    its ROUGE-L with a training prompt is above 0.9               (ROUGE-L: Lin 2004; short prompts have no long runs)
One whose ROUGE-L is above 0.7, from where on Self-Instruct (arXiv 2212.10560) takes a prompt for no
new one, is counted as similar. Test: pytest tests/tasks/evaluation/test_contamination.py
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, Lake
from dapflow.tasks.prompts.overlap import Pool
from dapflow.tasks.step import Out, step
from dapflow.tasks.words import ngrams, words

_SIMILAR = "similar"
_SHOWN = 200  # characters of the training prompt


class Overlap(BaseModel):
    """From where on a held-out prompt is too like a training prompt to count."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    run: int = Field(
        default=13, ge=1, description="words in a row that are those of training prompts"
    )
    short_run: int = Field(
        default=8,
        ge=1,
        description="length of the runs of which `covered` are those of training prompts",
    )
    covered: float = Field(
        default=0.7, gt=0, le=1, description="share of the runs of `short_run` words"
    )
    rouge_l: float = Field(
        default=0.9,
        gt=0,
        le=1,
        description="ROUGE-L F above which a prompt is left out; 1: only by runs",
    )
    similar: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="ROUGE-L F above which it is counted as similar, and kept",
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """A held-out prompt, by its place, that resembles a training prompt: by which measure, how
    much, and which prompt.
    """

    place: int
    measure: str
    value: float
    training_prompt: str


@step(
    "metrics",
    title="look for {held_out.rows} held-out prompts in training",
    expects=lambda held_out, **_: held_out.rows + 2,
    activity="measuring",
)
def find_overlap(out: Out, held_out: DatasetRef, pairs: list[DatasetRef], limits: Overlap) -> None:
    """Rows about held-out prompts (subject: the prompt; name: `overlap_...` for one that is left
    out, `similar_rouge_l` for one that is not; note: the training prompt), and two about the
    version: `contaminated_prompts` and `similar_prompts`."""
    prompts = out.lake.prompts(held_out)
    trained = {prompt for ref in pairs for prompt in _trained_on(out.lake, ref)}
    found = list(
        overlaps(
            [row["prompt"] for row in prompts],
            sorted(trained),
            limits,
            lambda done: out.progress(done, len(prompts), "prompts"),
        )
    )
    rows = [
        {
            "subject": prompts[one.place]["id"],
            "name": one.measure,
            "value": one.value,
            "unit": "share of the prompt",
        }
        | {"note": one.training_prompt[:_SHOWN]}
        for one in found
    ]
    bad = len(left_out(rows))
    looked = (
        f"{len(trained):,} training prompts: a run of {limits.run} words, {limits.covered:.0%} of "
        f"runs of {limits.short_run}, ROUGE-L"
    )
    rows += [
        {
            "subject": out.version,
            "name": "contaminated_prompts",
            "value": float(bad),
            "unit": "prompts",
            "note": f"looked for in {looked} above {limits.rouge_l:g}",
        },
        {
            "subject": out.version,
            "name": "similar_prompts",
            "value": float(len(found) - bad),
            "unit": "prompts",
            "note": "kept",
        },
    ]
    out.write(0, [{"id": out.row_id(n), **row} for n, row in enumerate(rows)])


def _trained_on(lake: Lake, ref: DatasetRef) -> list[str]:
    """The prompts of pairs that were not dropped, or prompts that were trained on by themselves."""
    if ref.kind == "prompts":
        return [row["prompt"] for row in lake.prompts(ref)]
    return [row["prompt"] for row in lake.pairs(ref) if row["dropped"] is None]


def left_out(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """The held-out prompts, by id, that rows of `find_overlap` say are not to count."""
    return {row["subject"] for row in rows if row["name"].startswith("overlap_")}


def overlaps(
    held_out: Sequence[str],
    trained: Sequence[str],
    limits: Overlap,
    advance: Any = lambda done: None,
) -> Iterator[Found]:
    """Held-out prompts that resemble training prompts, each by the first measure that holds."""
    known = [words(text) for text in trained]
    runs = {length: _runs(known, length) for length in (limits.run, limits.short_run)}
    pool = Pool(
        trained, math.nextafter(limits.similar, 0), words
    )  # so that what is equal is found too
    for place, text in enumerate(held_out):
        if (
            found := _by_runs(words(text), runs, limits) or _by_rouge(text, pool, limits)
        ) is not None:
            measure, value, training = found
            yield Found(
                place=place, measure=measure, value=value, training_prompt=trained[training]
            )
        advance(place + 1)


def _by_runs(
    tokens: Sequence[str], runs: Mapping[int, Mapping[tuple[str, ...], int]], limits: Overlap
) -> tuple[str, float, int] | None:
    for gram in ngrams(tokens, limits.run):
        if gram in runs[limits.run]:
            return f"overlap_{limits.run}gram", 1.0, runs[limits.run][gram]
    grams = ngrams(tokens, limits.short_run)
    met = [runs[limits.short_run][gram] for gram in grams if gram in runs[limits.short_run]]
    return (
        (f"overlap_{limits.short_run}gram", len(met) / len(grams), met[0])
        if met and len(met) >= limits.covered * len(grams)
        else None
    )


def _by_rouge(text: str, known: Pool, limits: Overlap) -> tuple[str, float, int] | None:
    if (best := known.closest(text)) is None:
        return None
    if best.score > limits.rouge_l or best.score == 1.0:
        return "overlap_rouge_l", best.score, best.place
    return (f"{_SIMILAR}_rouge_l", best.score, best.place) if best.score > limits.similar else None


def _runs(texts: Sequence[Sequence[str]], length: int) -> dict[tuple[str, ...], int]:
    """Every run of so many words, and the first text that it stands in."""
    return {
        gram: place
        for place, text in reversed(list(enumerate(texts)))
        for gram in ngrams(text, length)
    }
