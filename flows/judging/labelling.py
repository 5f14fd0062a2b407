"""What judges are asked: to score completions one by one, or to compare two at a time. Part of one
iteration (flows/iteration.py).

    label(...)    completions -> verdicts -> acceptances -> pairs
                  (a ranker compares the accepted ones anew), or completions -> comparisons -> pairs
    contest(...)  the new policy's answers against the old one's
Of several judges as one, each gives verdicts of its own, and a step makes them into one.
Test: pytest tests/flows/judges
"""

from dataclasses import dataclass, replace

from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.standing import IterationData
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.combine import combine, combine_comparisons
from dapflow.tasks.judging.compare import compare, compare_accepted, compare_policies
from dapflow.tasks.judging.score import judge
from dapflow.tasks.judging.spec import Seated
from dapflow.tasks.pairing.acceptance import accept
from dapflow.tasks.pairing.pairs import pair, pair_compared


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Verdicts on the answers of two sides: comparisons of both, or scores of each."""

    compared: DatasetRef | None = None
    judged_before: DatasetRef | None = None
    judged_after: DatasetRef | None = None

    def verdicts(self) -> list[DatasetRef]:
        """The datasets that there are: one, or two."""
        refs = (self.compared, self.judged_before, self.judged_after)
        return [ref for ref in refs if ref is not None]


def label(
    recipe: Recipe,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Seated,
    baseline: DatasetRef | None,
    seed: int,
) -> IterationData:
    """Labelled pairs, and what they were made of."""
    given = IterationData(prompts=prompts, completions=completions)
    if by.compares:
        verdicts = first_round(prompts, completions, by, baseline, seed)
        pairs = pair_compared(prompts, completions, verdicts)
        return replace(given, verdicts=verdicts, pairs=pairs)
    verdicts = scored(prompts, completions, by, baseline, whiten=True)
    acceptances = accept(completions, verdicts, recipe.acceptance, seed)
    given = replace(given, verdicts=verdicts, acceptances=acceptances)
    ranker = by.model is not None and by.spec.compares_with_a_baseline
    if ranker and recipe.pairing.rule == "first-round":
        compared = compare_accepted(prompts, completions, acceptances, by.spec, by.model, seed)
        pairs = pair_compared(prompts, completions, compared)
        return replace(given, comparisons=compared, pairs=pairs)
    log_odds = by.spec.unit == "log-odds"
    pairs = pair(prompts, completions, acceptances, recipe.pairing, log_odds, seed)
    return replace(given, pairs=pairs)


def contest(
    prompts: DatasetRef,
    before: DatasetRef,
    after: DatasetRef,
    by: Seated,
    baseline: DatasetRef | None,
) -> Contest:
    """Verdicts on the answers of two policies: on each by itself, or on both together."""
    if by.compares:
        return Contest(compared=versus(prompts, before, after, by, baseline))
    return Contest(
        judged_before=scored(prompts, before, by, baseline),
        judged_after=scored(prompts, after, by, baseline),
    )


def score(
    prompts: DatasetRef, completions: DatasetRef, by: Seated, baseline: DatasetRef | None
) -> DatasetRef | None:
    """The scores of a judge that gives some."""
    return None if by.compares else scored(prompts, completions, by, baseline)


def scored(
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Seated,
    baseline: DatasetRef | None,
    whiten: bool = False,
) -> DatasetRef:
    """Scores.

    baseline: an answer to each prompt, for a judge that compares with it.
    whiten: where a rule of several judges says so; two policies that are to be compared keep one
    scale.
    """
    if by.members:
        verdicts = [
            scored(prompts, completions, member, baseline) for member in by.members.values()
        ]
        return combine(prompts, verdicts, by.combination, whiten)
    needed = baseline if by.spec.compares_with_a_baseline else None
    return judge(prompts, completions, by.spec, by.model, needed)


def first_round(
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Seated,
    baseline: DatasetRef | None,
    seed: int,
) -> DatasetRef:
    """Comparisons of the first round of each prompt's completions."""
    if not by.members:
        return compare(prompts, completions, by.spec, by.model, seed)
    verdicts = [
        first_round(prompts, completions, member, baseline, seed)
        if member.compares
        else scored(prompts, completions, member, baseline)
        for member in by.members.values()
    ]
    names = list(by.members)
    return combine_comparisons(prompts, completions, None, verdicts, names, by.combination, seed)


def versus(
    prompts: DatasetRef,
    before: DatasetRef,
    after: DatasetRef,
    by: Seated,
    baseline: DatasetRef | None,
) -> DatasetRef:
    """Comparisons of each answer of `after` with one of `before`."""
    if not by.members:
        return compare_policies(prompts, before, after, by.spec, by.model)
    verdicts = [
        (name, ref)
        for name, member in by.members.items()
        for ref in (
            [versus(prompts, before, after, member, baseline)]
            if member.compares
            else [scored(prompts, side, member, baseline) for side in (before, after)]
        )
    ]
    names = [name for name, _ in verdicts]
    refs = [ref for _, ref in verdicts]
    return combine_comparisons(prompts, after, before, refs, names, by.combination, 0)


def models_of(judge: Seated | None) -> list[ModelRef]:
    """The models of the lake that a judge is, or has among its members."""
    singles = [] if judge is None else judge.singles()
    return [single.model for single in singles if single.model is not None]


def same_judge(judge: Seated | None, other: Seated | None) -> bool:
    """Whether a judge is in both: the same model, whatever it is asked, the same program or
    person.
    """
    mine, theirs = (
        {single.spec.identity for single in asked.singles()} if asked is not None else set()
        for asked in (judge, other)
    )
    return not mine.isdisjoint(theirs)
