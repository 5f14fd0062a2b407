"""How verdicts are come by: a judge scores completions one by one, or compares two at a time. Part of one iteration (flows/iteration.py).

label(...)    completions -> verdicts -> acceptances -> pairs, or completions -> comparisons -> pairs
contest(...)  the new policy's answers against the old one's
"""

from typing import TypeGuard

from flows.recipe import Recipe
from storage import DatasetRef
from tasks.acceptance import accept
from tasks.comparing import By as Comparing
from tasks.comparing import compare, compare_policies
from tasks.judges.llm import LLM
from tasks.judges.programs import Program
from tasks.judging import By, judge
from tasks.pairing import pair, pair_compared


def compares(by: By) -> TypeGuard[Comparing]:
    """Whether a judge compares two completions, rather than score one."""
    return isinstance(by, LLM | Program) and by.compares


def label(
    recipe: Recipe, prompts: DatasetRef, completions: DatasetRef, by: By, baseline: DatasetRef | None, seed: int
) -> dict[str, DatasetRef]:
    """Labelled pairs, and what they were made of, by name."""
    if compares(by):
        verdicts = compare(prompts, completions, by, recipe.pairing, seed)
        return {"verdicts": verdicts, "pairs": pair_compared(prompts, completions, verdicts)}
    verdicts = judge(prompts, completions, by, baseline)
    acceptances = accept(completions, verdicts, recipe.acceptance, seed)
    return {"verdicts": verdicts, "acceptances": acceptances, "pairs": pair(prompts, completions, acceptances, recipe.pairing, seed)}


def contest(prompts: DatasetRef, before: DatasetRef, after: DatasetRef, by: By, baseline: DatasetRef | None) -> dict[str, DatasetRef]:
    """Verdicts on the answers of two policies: on each by itself, or on both together."""
    if compares(by):
        return {"compared": compare_policies(prompts, before, after, by)}
    return {"judged_before": judge(prompts, before, by, baseline), "judged_after": judge(prompts, after, by, baseline)}


def score(prompts: DatasetRef, completions: DatasetRef, by: By, baseline: DatasetRef | None) -> DatasetRef | None:
    """The scores of a judge that gives some."""
    return None if compares(by) else judge(prompts, completions, by, baseline)
