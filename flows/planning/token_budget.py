"""How many tokens a recipe samples for its training, at most, and what fits it into a budget. Found
by planning: nothing is run.

    within(recipe, iterations, 20_000)  ->  Fitted(settings=("prompts.per_iteration=17",), tokens=19_040)
Test: pytest tests/flows/planning/test_token_budget.py
"""

from collections.abc import Mapping, Set
from dataclasses import dataclass

from dapflow.flows.align import chain
from dapflow.flows.iteration import iterate
from dapflow.flows.recipes.changes import at, change
from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import UserError
from dapflow.tasks.step import Call, planning


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """The settings that fit a recipe into a budget (none where it fits as it is), and the tokens
    that it then samples at most.
    """

    settings: tuple[str, ...]
    tokens: int


def within(recipe: Recipe, iterations: int, budget: int | None) -> Fitted:
    """The largest sizes, all in the same proportion, at which even answers that are as long as they
    may be stay within `budget` tokens.

    Fewer prompts an iteration, or fewer rounds: the method itself (answers a prompt, loss, batches)
    stays as it is. Only what is sampled for training counts, that of a reward model's or a sweep's
    data included; answers to held-out prompts do not. Raises UserError where one prompt is too
    much.
    """
    whole = tokens_at_most(recipe, iterations)
    if budget is None or whole <= budget:
        return Fitted(settings=(), tokens=whole)
    sizes = _sizes(
        recipe, {at(recipe, number).data_of(number) for number in range(1, iterations + 1)}
    )
    most = max(sizes.values())
    # parts of `most`: the first fits for want of anything better, the second does not
    fits, too_much = 0, most
    while too_much - fits > 1:
        middle = (fits + too_much) // 2
        tokens = tokens_at_most(change(recipe, _scaled(sizes, middle, most)), iterations)
        fits, too_much = (middle, too_much) if tokens <= budget else (fits, middle)
    settings = _scaled(sizes, max(fits, 1), most)
    tokens = tokens_at_most(change(recipe, settings), iterations)
    if tokens > budget:
        raise UserError(
            f"{recipe.name} samples up to {tokens:,} tokens even of the fewest prompts, more than "
            f"the {budget:,} that it may."
        )
    return Fitted(settings=settings, tokens=tokens)


def tokens_at_most(recipe: Recipe, iterations: int) -> int:
    """Tokens that are sampled for the training of so many iterations when every answer is as long
    as it may be.
    """
    with planning() as calls:
        *_, last = chain(recipe, iterations, iterate.fn)
    by_version = {call.version: call for call in calls}
    return sum(
        _sampled(by_version[version]) for version in _behind(by_version, last.policy.version)
    )


def _sampled(call: Call) -> int:
    """Tokens of answers that a step samples at most; what a judge writes is none, nor are new
    prompts, which take as many tries as they take.
    """
    return call.work.sampled if call.activity in ("sampling", "training") else 0


def _behind(calls: Mapping[str, Call], version: str) -> set[str]:
    """A planned version and all that it would be made from."""
    behind, front = {version}, [version]
    while front:
        parents = {parent for child in front for parent in calls[child].parents.values()}
        front = [parent for parent in parents & calls.keys() if parent not in behind]
        behind.update(front)
    return behind


def _sizes(recipe: Recipe, data: Set[str]) -> dict[str, int]:
    """What decides how much is sampled, by key. data: what its iterations learn from."""
    sizes = {"prompts.per_iteration": recipe.prompts.per_iteration} if data != {"rounds"} else {}
    sizes |= {"rounds.count": recipe.rounds.count} if "rounds" in data else {}
    sizes |= {"judgements.prompts": recipe.judgements.prompts} if "seeds" in data else {}
    return sizes | (
        {"annotated_prompts": recipe.annotated_prompts} if recipe.annotated_prompts else {}
    )


def _scaled(sizes: Mapping[str, int], part: int, whole: int) -> tuple[str, ...]:
    return tuple(f"{key}={max(1, size * part // whole)}" for key, size in sizes.items())
