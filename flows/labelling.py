"""How verdicts are come by: a judge scores completions one by one, or compares two at a time. Part
of one iteration (flows/iteration.py).

label(...)    completions -> verdicts -> acceptances -> pairs (by a ranker -> comparisons -> pairs), or completions -> comparisons -> pairs
contest(...)  the new policy's answers against the old one's
Of several judges as one, each gives verdicts of its own, and a step makes them into one.
"""

from dapflow.flows.judges import Asked, Panel, Who, compares, compares_itself
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.by_policy import compare_itself, judge_itself
from dapflow.tasks.judging.combine import combine, combine_comparisons
from dapflow.tasks.judging.compare import compare, compare_accepted, compare_policies
from dapflow.tasks.judging.score import judge
from dapflow.tasks.pairing.acceptance import accept
from dapflow.tasks.pairing.pairs import pair, pair_compared


def label(
    recipe: Recipe,
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Who,
    baseline: DatasetRef | None,
    seed: int,
) -> dict[str, DatasetRef]:
    """Labelled pairs, and what they were made of, by name."""
    if compares(by):
        verdicts = _compared(prompts, completions, by, baseline, seed)
        return {"verdicts": verdicts, "pairs": pair_compared(prompts, completions, verdicts)}
    verdicts = scored(prompts, completions, by, baseline, whiten=True)
    acceptances = accept(completions, verdicts, recipe.acceptance, seed)
    found = {"verdicts": verdicts, "acceptances": acceptances}
    if (
        isinstance(by, ModelRef) and baseline is not None and recipe.pairing.rule == "first-round"
    ):  # a ranker, which knows two answers
        compared = compare_accepted(prompts, completions, acceptances, by, seed)
        return {
            **found,
            "comparisons": compared,
            "pairs": pair_compared(prompts, completions, compared),
        }
    return {**found, "pairs": pair(prompts, completions, acceptances, recipe.pairing, seed)}


def contest(
    prompts: DatasetRef, before: DatasetRef, after: DatasetRef, by: Who, baseline: DatasetRef | None
) -> dict[str, DatasetRef]:
    """Verdicts on the answers of two policies: on each by itself, or on both together."""
    if compares(by):
        return {"compared": versus(prompts, before, after, by, baseline)}
    return {
        "judged_before": scored(prompts, before, by, baseline),
        "judged_after": scored(prompts, after, by, baseline),
    }


def score(
    prompts: DatasetRef, completions: DatasetRef, by: Who, baseline: DatasetRef | None
) -> DatasetRef | None:
    """The scores of a judge that gives some."""
    return None if compares(by) else scored(prompts, completions, by, baseline)


def scored(
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Who,
    baseline: DatasetRef | None,
    whiten: bool = False,
) -> DatasetRef:
    """Scores. whiten: where a rule of several judges says so; two policies that are to be compared
    keep one scale.
    """
    if isinstance(by, Panel):
        members = [
            judge(prompts, completions, one, baseline if name in by.rankers else None)
            for name, one in by.members.items()
        ]
        return combine(prompts, members, by.combination, whiten)
    if isinstance(by, Asked):
        return judge_itself(prompts, completions, by.policy, by.asks, by.sampler, by.chat_template)
    return judge(prompts, completions, by, baseline)


def versus(
    prompts: DatasetRef, before: DatasetRef, after: DatasetRef, by: Who, baseline: DatasetRef | None
) -> DatasetRef:
    """Each answer of `after` against each of `before`, by a judge that compares."""
    if isinstance(by, Panel):
        found = list[tuple[str, DatasetRef]]()
        for name, one in by.members.items():
            if compares_itself(one):
                found.append((name, compare_policies(prompts, before, after, one)))
            else:
                found += [
                    (name, judge(prompts, side, one, baseline if name in by.rankers else None))
                    for side in (before, after)
                ]
        return combine_comparisons(
            prompts,
            after,
            before,
            [ref for _, ref in found],
            [name for name, _ in found],
            by.combination,
            0,
        )
    if isinstance(by, Asked):
        return compare_itself(
            prompts, after, before, by.policy, by.asks, by.sampler, by.chat_template, 0
        )
    assert compares_itself(by)
    return compare_policies(prompts, before, after, by)


def _compared(
    prompts: DatasetRef,
    completions: DatasetRef,
    by: Who,
    baseline: DatasetRef | None,
    seed: int,
) -> DatasetRef:
    """The first round of each prompt's completions, by a judge that compares."""
    if isinstance(by, Panel):
        found = [
            compare(prompts, completions, one, seed)
            if compares_itself(one)
            else judge(prompts, completions, one, baseline if name in by.rankers else None)
            for name, one in by.members.items()
        ]
        return combine_comparisons(
            prompts, completions, None, found, list(by.members), by.combination, seed
        )
    if isinstance(by, Asked):
        return compare_itself(
            prompts, completions, None, by.policy, by.asks, by.sampler, by.chat_template, seed
        )
    assert compares_itself(by)
    return compare(prompts, completions, by, seed)
