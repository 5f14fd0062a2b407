"""A judge compares completions: each two in both orders, a person in one.

    compare(prompts, completions, by, model, seed)   ->  verdicts on matches of a prompt's completions
    compare_accepted(..., acceptances, ...)          ->  the same of accepted completions
    compare_policies(prompts, before, after, by, model)  ->  verdicts on answers of two policies
The orders are stored: `forward` and `backward`. Test: pytest tests/flows/judges/test_llm_judge.py
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.tasks.judging.judges.base import EMPTY, IDENTICAL, Comparer, Match, Verdict
from dapflow.tasks.judging.matches import Drawn, Meeting, matches_expected
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.score import asked_prompts, opened
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.statistics import wilson
from dapflow.tasks.step import Out, contents_of, step
from dapflow.tasks.step.shards import spread

Row = Mapping[str, Any]
# Of a judge that keeps every answer itself (True) the rows are written once all are there.
_ROWS_PER_CHUNK = {True: 10_000, False: 128}


@step(
    "verdicts",
    title="compare {completions.rows} of {completions} by {by}",
    expects=matches_expected,
    activity="judging",
    work=lambda prompts, completions, by, seed, **_: by.work(
        _material(
            prompts,
            Meeting(completions=completions, seed=seed),
            by,
            matches_expected(prompts, completions),
        )
    ),
)
def compare(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None,
    seed: int,
) -> None:
    """A verdict on each match of the first round; and one, without a match, on what was refused at
    sampling.
    """
    _compare(out, prompts, Meeting(completions=completions, seed=seed), by, model)


def _accepted_matches(prompts: DatasetRef, acceptances: DatasetRef) -> int:
    """How many matches of accepted completions there will be at most."""
    accepted = contents_of(acceptances).rows // max(prompts.rows, 1)
    return prompts.rows * (accepted // 2)


@step(
    "verdicts",
    title="compare what {acceptances} accepts by {by}",
    expects=lambda prompts, acceptances, **_: _accepted_matches(prompts, acceptances),
    activity="judging",
    work=lambda prompts, completions, acceptances, by, seed, **_: by.work(
        _material(
            prompts,
            Meeting(completions=completions, acceptances=acceptances, seed=seed),
            by,
            _accepted_matches(prompts, acceptances),
        )
    ),
)
def compare_accepted(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    acceptances: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None,
    seed: int,
) -> None:
    """A verdict on each match of the first round of the accepted completions, by a judge whose
    scores are comparisons: RSO's labels, its scores only accept (arXiv 2309.06657).
    """
    meeting = Meeting(completions=completions, acceptances=acceptances, seed=seed)
    _compare(out, prompts, meeting, by, model)


@step(
    "verdicts",
    title="compare {after} with {before} by {by}",
    expects=lambda after, **_: after.rows,
    activity="judging",
    work=lambda prompts, before, after, by, **_: by.work(
        _material(prompts, Meeting(completions=after, other=before), by, after.rows)
    ),
)
def compare_policies(
    out: Out,
    prompts: DatasetRef,
    before: DatasetRef,
    after: DatasetRef,
    by: JudgeSpec,
    model: ModelRef | None = None,
) -> None:
    """A verdict on each answer of the policy `after` against each of the policy `before` to the
    same prompt.
    """
    _compare(out, prompts, Meeting(completions=after, other=before), by, model)


def _compare(
    out: Out, prompts: DatasetRef, meeting: Meeting, by: JudgeSpec, model: ModelRef | None
) -> None:
    chunks = comparison_chunks(len(meeting.matches(out.lake)), by.asked_as_a_whole)
    arguments = {"prompts": prompts, "meeting": meeting, "by": by, "model": model}
    if by.asked_as_a_whole:
        compare_chunks(out, **arguments)
    else:
        spread(out, compare_chunks, chunks, **arguments)
    write_steadiness(out, chunks)


def _material(prompts: DatasetRef, meeting: Meeting, by: JudgeSpec, verdicts: int) -> Material:
    """What is asked about the matches, for the plan."""
    sides = [ref for ref in (meeting.completions, meeting.other) if ref is not None]

    def matches(lake: Lake) -> list[Match]:
        return asked_of(asked_prompts(lake, prompts, by), meeting.matches(lake))

    return replace(Material.of(verdicts, prompts, *sides), matches=matches)


def compare_chunks(
    out: Out, prompts: DatasetRef, meeting: Meeting, by: JudgeSpec, model: ModelRef | None
) -> None:
    """Write the chunks that are missing."""
    asked = asked_prompts(out.lake, prompts, by)
    with opened(out, by, model, baselines={}) as judge:
        write_comparisons(out, asked, meeting.matches(out.lake), judge)


def asked_of(prompts: Mapping[str, Row], matches: Sequence[Drawn]) -> list[Match]:
    """The matches that a judge is asked about. prompts: their rows by id."""
    return [
        Match(
            completion_id=one["id"],
            other_id=other["id"],
            first=one["text"],
            second=other["text"],
            prompt=prompts[one["prompt_id"]]["prompt"],
            answer=prompts[one["prompt_id"]]["answer"],
        )
        for one, other in matches
        if other is not None and unasked(one, other) is None
    ]


def comparison_chunks(matches: int, together: bool = False) -> int:
    """How many chunks the verdicts on so many matches are. together: of a judge that answers all at
    once.
    """
    return max(1, -(-matches // _ROWS_PER_CHUNK[together]))


def write_comparisons(
    out: Out, prompts: Mapping[str, Row], matches: Sequence[Drawn], judge: Comparer
) -> None:
    """The verdicts of a judge on matches, in their order, as far as they are missing. prompts:
    their rows by id.
    """
    size = _ROWS_PER_CHUNK[judge.together]
    chunks = [matches[first : first + size] for first in range(0, len(matches), size)] or [[]]
    missing = list(out.missing(chunks))
    judged = len(matches) - sum(len(chunk) for _, chunk in missing)

    def advance(count: int) -> None:
        nonlocal judged
        judged += count
        out.progress(judged, len(matches), "comparisons")

    for some in [missing] if judge.together else [[one] for one in missing]:
        known = {number: [unasked(one, other) for one, other in chunk] for number, chunk in some}
        asked = asked_of(prompts, [match for _, chunk in some for match in chunk])
        advance(sum(verdict is not None for verdicts in known.values() for verdict in verdicts))
        found = iter(list(judge.compare(asked, advance)))
        for number, chunk in some:
            verdicts = [verdict or next(found) for verdict in known[number]]
            rows = [
                comparison_row(match, verdict, judge.name)
                for match, verdict in zip(chunk, verdicts, strict=True)
            ]
            out.write(
                number,
                [
                    {"id": out.row_id(number * size + place), **row}
                    for place, row in enumerate(rows)
                ],
            )


def comparison_row(match: Drawn, verdict: Verdict, judge: str) -> dict[str, Any]:
    """The columns of a verdict on a match, but for its id."""
    one, other = match
    return (
        {
            "prompt_id": one["prompt_id"],
            "completion_id": one["id"],
            "other_id": None if other is None else other["id"],
            "judge": judge,
        }
        | {"outcome": verdict.outcome, "score": verdict.score, "note": verdict.note}
        | {"forward": verdict.forward, "backward": verdict.backward}
    )


def write_steadiness(out: Out, chunk: int) -> None:
    """How steady the judge of all that has been written was, as metrics of the version."""
    rows = biases(out.all_rows())
    out.write(
        chunk,
        [{"id": out.row_id(n), "subject": out.version, **row} for n, row in enumerate(rows)],
        table="metrics",
    )


def unasked(one: Row, other: Row | None) -> Verdict | None:
    """The verdict on a match that no judge need be asked about; None for all others."""
    for row in (one, other):
        if row is not None and row["finish_reason"] == "refused":
            return Verdict(outcome="refused", note=row["note"])
    assert other is not None
    if not (one["text"].strip() and other["text"].strip()):
        return Verdict(outcome="invalid", note=EMPTY)
    return (
        Verdict(outcome="tie", score=0.5, note=IDENTICAL) if one["text"] == other["text"] else None
    )


def biases(verdicts: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """How often both orders name the same answer, and how often the first place wins, with 95 %
    intervals. Answers of exactly one half name neither. A person is asked in one order only."""
    told = [
        (row["forward"], row["backward"])
        for row in verdicts
        if row["outcome"] in ("win", "lose", "tie")
    ]
    decided = [
        (forward, backward) for forward, backward in told if not {forward, backward} & {0.5, None}
    ]
    consistent = sum((forward > 0.5) != (backward > 0.5) for forward, backward in decided)
    asked = [one for both in told for one in both if one not in (0.5, None)]
    for name, count, total in (
        ("position_consistency", consistent, len(decided)),
        ("first_place_wins", sum(one > 0.5 for one in asked), len(asked)),
    ):
        if total:
            low, high = wilson(count, total)
            unit = "share of comparisons" if name == "position_consistency" else "share of answers"
            yield {"name": name, "value": count / total, "low": low, "high": high, "unit": unit}
