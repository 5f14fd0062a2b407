"""Who won: verdicts on the answers of two sides as win rates, raw and length-controlled. Values in,
figures out.

    decisions = by_scores(verdicts before, verdicts after), or by_comparison(verdicts)
    figures = win_rates_of(decisions, texts, seed)
Test: pytest tests/tasks/evaluation/test_contests.py
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np

from dapflow.storage.rows import CompletionRow, ScoredRow, VerdictRow, is_comparison
from dapflow.tasks.evaluation.agreement import Judgement, agreement_of
from dapflow.tasks.evaluation.winrate.comparisons import ONLY_SYSTEM, Comparison, Comparisons
from dapflow.tasks.evaluation.winrate.rates import advice, win_rates
from dapflow.tasks.figures import Figure, mean, paired, share
from dapflow.tasks.judging.judges.base import EMPTY
from dapflow.tasks.metrics import versus

Verdicts = Sequence[VerdictRow]
_WON = {"win": 1.0, "tie": 0.5, "lose": 0.0}
_FAILED = ("invalid", "over_budget")
_ENOUGH = 30  # prompts: of fewer, nobody can tell length from quality
NOT_JUDGED = "no held-out prompt was judged on both sides"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An answer of the new side against one of the old side to the same prompt. won: 1, 0, or a
    half for a tie.
    """

    prompt_id: str
    new_id: str
    old_id: str
    won: float


def by_scores(before: Verdicts, after: Verdicts) -> list[Decision]:
    """Each scored answer of `after` against each of `before` to the same prompt: the higher score
    wins, equal ones tie.
    """
    old = defaultdict[str, list[ScoredRow]](list)
    for verdict in before:
        if verdict["outcome"] == "scored":
            old[verdict["prompt_id"]].append(verdict)
    return [
        Decision(
            prompt_id=new["prompt_id"],
            new_id=new["completion_id"],
            old_id=other["completion_id"],
            won=float(np.sign(new["score"] - other["score"])) / 2 + 0.5,
        )
        for new in after
        if new["outcome"] == "scored"
        for other in old[new["prompt_id"]]
    ]


def by_comparison(verdicts: Verdicts) -> list[Decision]:
    """The comparisons that came to a verdict; the first side is the new one."""
    return [
        Decision(
            prompt_id=verdict["prompt_id"],
            new_id=verdict["completion_id"],
            old_id=verdict["other_id"],
            won=_WON[verdict["outcome"]],
        )
        for verdict in verdicts
        if is_comparison(verdict)
    ]


def scores_of(verdicts: Verdicts) -> dict[str, list[float]]:
    """The scores of each prompt's answers, where there are any."""
    scores = defaultdict[str, list[float]](list)
    for verdict in verdicts:
        if verdict["outcome"] == "scored":
            scores[verdict["prompt_id"]].append(verdict["score"])
    return dict(scores)


def prompt_wins(decisions: Sequence[Decision]) -> dict[str, float]:
    """For each prompt the share of its decisions that the new side wins; a tie counts half."""
    won = defaultdict[str, list[float]](list)
    for one in decisions:
        won[one.prompt_id].append(one.won)
    return {prompt: fmean(shares) for prompt, shares in won.items()}


def why_undecided(answers: Sequence[CompletionRow], verdicts: Verdicts) -> str:
    """Why there is no decision at all: what became of the answers of both sides, and of the
    verdicts on them.
    """
    refused = sum(row["finish_reason"] == "refused" for row in answers)
    empty = sum(row["finish_reason"] != "refused" and not row["text"].strip() for row in answers)
    failed = Counter(
        row["note"] or row["outcome"].replace("_", " ")
        for row in verdicts
        if row["outcome"] in _FAILED
    )
    failed.pop(EMPTY, None)
    told = [
        *([f"{empty} of {len(answers)} answers were empty"] if empty else []),
        *([f"{refused} of {len(answers)} answers were refused before sampling"] if refused else []),
        *(f"{count} of {len(verdicts)} verdicts: {note}" for note, count in failed.most_common(1)),
    ]
    return f"{NOT_JUDGED} ({'; '.join(told)})" if told else NOT_JUDGED


def win_rates_of(
    decisions: Sequence[Decision],
    texts: Mapping[str, str],
    seed: int,
    why_none: str,
    baseline: str | None = None,
) -> Iterator[Figure]:
    """Win rate with what so many prompts are good for, the number of prompts, and the
    length-controlled win rate.

    why_none: the reason why there are none, where there is no decision.

    Answers to one prompt (several seeds) are averaged, and prompts are drawn again with all their
    answers: each answer has a random stream of its own, so that is where its chance lies too.
    texts: of the completions, by id. baseline: whose answers the old side's are, if not those of
    the policy that the iteration began with.
    """
    wins = prompt_wins(decisions)

    def named(name: str) -> str:
        return versus(name, baseline) if baseline else name

    rate = mean(named("win_rate"), wins, seed, why_none, bounded=True)
    if rate.note is None and rate.low is not None and rate.high is not None:
        rate = replace(
            rate,
            note=advice(
                len(wins), 50 * (rate.high - rate.low), float(np.std(list(wins.values()), ddof=1))
            )
            or None,
        )
    yield rate
    yield Figure(name=named("judged_prompts"), value=float(len(wins)))
    controlled = named("length_controlled_win_rate")
    yield (
        _length_controlled(controlled, decisions, texts, seed, len(wins))
        if wins
        else Figure(name=controlled, value=None, note=why_none)
    )


def _length_controlled(
    name: str, decisions: Sequence[Decision], texts: Mapping[str, str], seed: int, prompts: int
) -> Figure:
    if prompts < _ENOUGH:
        return Figure(
            name=name,
            value=None,
            note=(
                f"{prompts} judged prompts are too few to tell length from quality: it takes "
                f"{_ENOUGH}"
            ),
        )
    answers = {
        text: place for place, text in enumerate(sorted({texts[one.new_id] for one in decisions}))
    }
    rows = [
        Comparison(
            system=ONLY_SYSTEM,
            instruction=one.prompt_id,
            answer=answers[texts[one.new_id]],
            delta=len(texts[one.new_id]) - len(texts[one.old_id]),
            preference=one.won,
        )
        for one in decisions
    ]
    found = win_rates(Comparisons(rows=rows), seed=seed).systems[ONLY_SYSTEM]
    rate, low, high = (
        None if one is None else one / 100
        for one in (
            found.length_controlled_win_rate,
            found.length_controlled_low,
            found.length_controlled_high,
        )
    )
    return Figure(name=name, value=rate, low=low, high=high, note=" ".join(found.notes) or None)


def between_judges(
    training: Sequence[Decision],
    evaluation: Sequence[Decision],
    texts: Mapping[str, str],
    seed: int,
) -> Iterator[Figure]:
    """The training judge's own win rate, by how much it is above the evaluation judge's (the sign
    of over-optimisation: arXiv 2210.10760), and how often both name the same answer. The gap is
    paired, over the prompts that both have judged."""
    why = (
        "both judges decided on none of the held-out answers"
        if training
        else "the training judge gave no scores on the held-out answers"
    )
    own, independent = prompt_wins(training), prompt_wins(evaluation)
    yield mean("training_win_rate", own, seed, why, bounded=True)
    yield paired("win_rate_gap", independent, own, seed, why, bounded=True)
    others = {(one.new_id, one.old_id): one.won for one in evaluation}
    both = [
        Judgement(
            one=one.won,
            other=others[one.new_id, one.old_id],
            longer=len(texts[one.new_id]) - len(texts[one.old_id]),
        )
        for one in training
        if (one.new_id, one.old_id) in others
    ]
    if not both:
        yield share("judge_agreement", 0, 0, why)
        return
    found = agreement_of(both)
    yield Figure(
        name="judge_agreement",
        value=found.agreement,
        low=found.agreement_low,
        high=found.agreement_high,
    )
    yield Figure(
        name="judge_kappa",
        value=found.kappa,
        note="one of them always says the same, so chance explains all"
        if found.kappa is None
        else None,
    )
