"""A judge compares completions: an LLM or a ranker each two in both orders, a person in one.

    compare(prompts, completions, by, seed)              ->  verdicts, one per match of a prompt's own completions
    compare_accepted(prompts, completions, acceptances, ranker, seed)  ->  the same of accepted ones
    compare_policies(prompts, before, after, by)         ->  verdicts, one per match of an answer of each policy
The orders are stored: `forward` and `backward`. Test: pytest tests/flows/judges/test_llm_judge.py
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.judges.base import EMPTY, IDENTICAL, Comparer, Match, Verdict
from dapflow.tasks.judging.judges.human import Human, HumanJudge
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.programs import Program, ProgramJudge
from dapflow.tasks.judging.judges.ranker import RankerJudge
from dapflow.tasks.judging.matches import (
    Drawn,
    first_matches,
    matches_expected,
    own_matches,
    policy_matches,
)
from dapflow.tasks.judging.score import asked_prompts
from dapflow.tasks.judging.work import Material, comparing, ranking
from dapflow.tasks.statistics import wilson
from dapflow.tasks.step import Out, contents_of, step

Row = Mapping[str, Any]
By = LLM | Program | Human
_ROWS_PER_CHUNK = {
    True: 10_000,
    False: 128,
}  # of a judge that keeps every answer itself the rows are written once all are there


@step(
    "verdicts",
    title="compare {completions.rows} of {completions} by {by}",
    expects=matches_expected,
    activity="judging",
    work=lambda prompts, completions, by, seed: comparing(
        by,
        matches_expected(prompts, completions),
        Material(read=(prompts, completions), answers=(completions,)),
        partial(_own, prompts=prompts, completions=completions, by=by, seed=seed),
    ),
)
def compare(out: Out, prompts: DatasetRef, completions: DatasetRef, by: By, seed: int) -> None:
    """A verdict on each match of the first round; and one, without a match, on what was refused at
    sampling.
    """
    _judge(out, prompts, own_matches(out.lake, completions, seed), by)


def _accepted_matches(prompts: DatasetRef, acceptances: DatasetRef) -> int:
    """How many matches of accepted completions there will be at most."""
    accepted = contents_of(acceptances).rows // max(prompts.rows, 1)
    return prompts.rows * (accepted // 2)


@step(
    "verdicts",
    title="compare what {acceptances} accepts by {ranker}",
    expects=lambda prompts, acceptances, **_: _accepted_matches(prompts, acceptances),
    activity="judging",
    work=lambda prompts, completions, acceptances, **_: ranking(
        _accepted_matches(prompts, acceptances), prompts, completions
    ),
)
def compare_accepted(
    out: Out,
    prompts: DatasetRef,
    completions: DatasetRef,
    acceptances: DatasetRef,
    ranker: ModelRef,
    seed: int,
) -> None:
    """A verdict on each match of the first round of the accepted completions: RSO's labels, its
    scores only accept (arXiv 2309.06657).
    """
    accepted = {row["completion_id"] for row in out.lake.rows_of(acceptances) if row["accepted"]}
    matches = first_matches(
        [row for row in out.lake.rows_of(completions) if row["id"] in accepted], seed
    )
    judge = RankerJudge(out.lake, ranker, baselines={})
    write_comparisons(out, {row["id"]: row for row in out.lake.rows_of(prompts)}, matches, judge)
    write_steadiness(out, comparison_chunks(len(matches)))


@step(
    "verdicts",
    title="compare {after} with {before} by {by}",
    expects=lambda after, **_: after.rows,
    activity="judging",
    work=lambda prompts, before, after, by: comparing(
        by,
        after.rows,
        Material(read=(prompts, before, after), answers=(before, after)),
        partial(_of_policies, prompts=prompts, before=before, after=after, by=by),
    ),
)
def compare_policies(
    out: Out, prompts: DatasetRef, before: DatasetRef, after: DatasetRef, by: By
) -> None:
    """A verdict on each answer of the policy `after` against each of the policy `before` to the
    same prompt.
    """
    _judge(out, prompts, policy_matches(out.lake, before, after), by)


def _own(
    lake: Lake, prompts: DatasetRef, completions: DatasetRef, by: By, seed: int
) -> list[Match]:
    """What is asked about the completions, for the plan."""
    return asked_of(asked_prompts(lake, prompts, by), own_matches(lake, completions, seed))


def _of_policies(
    lake: Lake, prompts: DatasetRef, before: DatasetRef, after: DatasetRef, by: By
) -> list[Match]:
    """What is asked about the answers of two policies, for the plan."""
    return asked_of(asked_prompts(lake, prompts, by), policy_matches(lake, before, after))


def asked_of(prompts: Mapping[str, Row], matches: Sequence[Drawn]) -> list[Match]:
    """The matches that a judge is asked about. prompts: their rows by id."""
    return [
        Match(
            completion_id=one["id"], other_id=other["id"], first=one["text"], second=other["text"],
            prompt=prompts[one["prompt_id"]]["prompt"], answer=prompts[one["prompt_id"]]["answer"],
        )
        for one, other in matches
        if other is not None and unasked(one, other) is None
    ]  # fmt: skip


def _judge(out: Out, prompts: DatasetRef, matches: Sequence[Drawn], by: By) -> None:
    asked = asked_prompts(out.lake, prompts, by)
    with comparer_for(out, by) as judge:
        write_comparisons(out, asked, matches, judge)
        write_steadiness(out, comparison_chunks(len(matches), judge.together))


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


@contextmanager
def comparer_for(out: Out, by: By) -> Iterator[Comparer]:
    """Whoever compares, for as long as the block lasts."""
    if isinstance(by, Program):
        yield ProgramJudge(by)
    elif isinstance(by, Human):
        yield HumanJudge(by, out.lake, out.version, out.say)
    else:
        with llm_judge(out.lake, out.version, by, out.say) as judge:
            yield judge


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
