"""Who a recipe's judge is: its name or settings become a trained model, a model of the lake, a
program, an LLM, or several as one.

judge_named(recipe, recipe.judge, ...)  ->  Who          compares(who): whether it compares two completions, rather than score one
"""

from dataclasses import dataclass
from typing import TypeGuard

from dapflow.flows.recipes.recipe import Recipe
from dapflow.storage import ModelRef, UserError
from dapflow.tasks.judging.compare import By as Comparing
from dapflow.tasks.judging.judges.composite import Combination, Composite
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.programs import Program, pinned
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.judging.judges.reward_settings import RewardModel
from dapflow.tasks.judging.score import By
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, Part, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.step import current_lake
from dapflow.tasks.training.reward.train import train_reward_model

OF_THE_LAKE = "models@"
Named = RewardModel | LLM | Composite | SelfJudge | Human | str
"""A judge as a recipe names it."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Several judges as one. rankers: the names of those that compare with a baseline answer."""

    members: dict[str, By]
    rankers: frozenset[str]
    combination: Combination

    def __str__(self) -> str:
        return str(self.combination)

    @property
    def compares(self) -> bool:
        """A majority votes on two completions; a sum is one of probabilities when all its members
        compare.
        """
        return self.combination.rule == "majority" or all(
            compares(member) for member in self.members.values()
        )


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A policy that judges itself, through the engine that samples from it."""

    policy: ModelRef
    asks: SelfJudge
    sampler: Sampler
    chat_template: str | None

    def __str__(self) -> str:
        return f"{self.policy.version} {self.asks}"

    @property
    def compares(self) -> bool:
        """Whether it compares two completions."""
        return self.asks.compares


Who = By | Panel | Asked


def compares(who: Who) -> bool:
    """Whether a judge compares two completions, rather than score one."""
    return isinstance(who, LLM | Program | Human | Panel | Asked) and who.compares


def compares_itself(who: Who) -> TypeGuard[Comparing]:
    """The same of a single judge."""
    return not isinstance(who, Panel | Asked) and compares(who)


def members_of(who: Who | None) -> list[By]:
    """The single judges that a judge is made of."""
    if who is None:
        return []
    return (
        list(who.members.values())
        if isinstance(who, Panel)
        else [who.policy]
        if isinstance(who, Asked)
        else [who]
    )


def models_of(who: Who | None) -> list[ModelRef]:
    """The models of the lake among them."""
    return [one for one in members_of(who) if isinstance(one, ModelRef)]


def same_judge(one: Who | None, other: Who | None) -> bool:
    """Whether some judge is in both: the same model, the same model behind a server whatever it is
    asked, the same program or person.
    """
    identities = [
        {by.endpoint.model if isinstance(by, LLM) else str(by) for by in members_of(who)}
        for who in (one, other)
    ]
    return not identities[0].isdisjoint(identities[1])


def judge_named(
    recipe: Recipe, named: Named, policy: ModelRef, initial: ModelRef, part: Part
) -> Who:
    """Who judges. part: of the preferences, which a reward model that has to be trained learns
    from. Raises UserError for a wrong name.
    """
    if isinstance(named, Composite):
        members = {name: _single(recipe, one, initial, part) for name, one in named.members.items()}
        return panel(recipe, named, members)
    if isinstance(named, SelfJudge):
        return Asked(
            policy=policy,
            asks=named,
            sampler=recipe.sampler.own,
            chat_template=recipe.sampling.chat_template,
        )
    return _single(recipe, named, initial, part)


def needs_baseline(recipe: Recipe, named: Named) -> bool:
    """Whether a judge is a ranker, or has one among its members, and so needs a baseline answer to
    each prompt.
    """
    if isinstance(named, Composite):
        return any(needs_baseline(recipe, member) for member in named.members.values())
    if isinstance(named, SelfJudge):
        return needs_baseline(recipe, named.fallback)
    if isinstance(named, str) and named.startswith(OF_THE_LAKE):
        return current_lake().model(of_the_lake(named))["role"] == "ranker"
    settings = recipe.reward if named == "reward-model" else named
    return isinstance(settings, RewardModel) and settings.kind == "pairwise"


def check_judge(recipe: Recipe, named: Named, labels: bool) -> None:
    """Raise UserError for a judge that could not be asked, before anything is run. labels: whether
    it labels the training pairs.
    """
    if named == "none":
        return
    members = named.members.values() if isinstance(named, Composite) else [named]
    if isinstance(named, Composite):
        for member in members:
            check_judge(recipe, member, labels=False)
        comparing = named.rule == "majority" or all(_compares_named(member) for member in members)
        if (
            named.rule != "majority"
            and any(_compares_named(member) for member in members)
            and not comparing
        ):
            raise UserError(
                f"The judge's rule {named.rule} needs members that all score, or, for a sum, that all compare: majority takes both."
            )
        if comparing and not all(weight > 0 for weight in named.weights.values()):
            raise UserError(
                "The judge's weights must be greater than 0 where its members compare: a sum is the mean of their probabilities."
            )
        if comparing and named.rule in ("minimum", "safety-first"):
            raise UserError(
                f"The judge's rule {named.rule} needs scores, and its members compare: take majority or sum, or other members."
            )
    elif isinstance(named, LLM | SelfJudge):
        named.prompt_template()
        if isinstance(named, LLM):
            named.priced()
        elif named.fallback != "stop":
            check_judge(recipe, named.fallback, labels)
        comparing = named.compares
    else:
        comparing = _compares_named(named)
    if labels and comparing and (sentence := recipe.without_scores()):
        raise UserError(f"The recipe is not valid: {sentence}.")


def _compares_named(named: Named) -> bool:
    if isinstance(named, str):
        return (
            named != "reward-model" and not named.startswith(OF_THE_LAKE) and pinned(named).compares
        )
    return isinstance(named, LLM | Human) and named.compares


def of_the_lake(name: str) -> ModelRef:
    """The model behind `models@VERSION`. Raises UserError when there is none, or it is no judge."""
    lake = current_lake()
    found = lake.ref(name)
    if not isinstance(found, ModelRef) or lake.model(found)["role"] not in ("reward", "ranker"):
        raise UserError(
            f"{name} is not a reward model: `dapflow datasets --kind models` lists the models of the lake."
        )
    return found


def panel(recipe: Recipe, named: Composite, members: dict[str, By]) -> Panel:
    """The members as one judge."""
    names = tuple(members)
    scales = tuple(_scale(members[name]) for name in names) if named.rule == "safety-first" else ()
    weights = named.weights if named.rule == "sum" else {}
    threshold = named.threshold if named.rule == "safety-first" else 0.0
    combination = Combination(
        rule=named.rule, names=names, weights=weights, threshold=threshold, scales=scales
    )
    rankers = frozenset(
        name for name, member in named.members.items() if needs_baseline(recipe, member)
    )
    return Panel(members=members, rankers=rankers, combination=combination)


def _scale(member: By) -> tuple[float, float] | None:
    """The lowest and the highest score; None for logits."""
    return (
        None
        if isinstance(member, ModelRef)
        else member.scale
        if isinstance(member, LLM)
        else (0.0, 1.0)
    )


def _single(
    recipe: Recipe, named: RewardModel | LLM | Human | str, initial: ModelRef, part: Part
) -> By:
    if named == "reward-model":
        named = recipe.reward if part == "reward" else RewardModel()
    if isinstance(named, RewardModel):
        return _trained(recipe, named, initial, part)
    if isinstance(named, LLM | Human):
        return named
    return of_the_lake(named) if named.startswith(OF_THE_LAKE) else pinned(named)


def _trained(recipe: Recipe, settings: RewardModel, backbone: ModelRef, part: Part) -> ModelRef:
    source = find_source(recipe.preferences.source, PREFERENCES_FILE)
    labelled = load_preferences(source.name, source.digest, part)
    test = load_preferences(source.name, source.digest, "test")
    return train_reward_model(backbone, labelled, test, settings, recipe.seed)
