"""Where a run stands when an iteration begins, and the datasets that an iteration makes."""

from dataclasses import dataclass, replace

from dapflow.flows.recipes.recipe import Data, Recipe
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.seeds import derive_seed


@dataclass(frozen=True, kw_only=True)
class IterationData:
    """The datasets of an iteration; None for what its method does not make.

    prompts: what it trains on. completions: the policy's answers to them. people: people's answers.
    verdicts: of the judge that labels. acceptances: of completions. comparisons: a ranker's, of
    what is accepted. pairs: what is trained on. judgements: the policy's own, which it learns from.
    held_out: prompts that nothing is trained on. before, after: the two policies' answers to them.
    overlap: which of them are too like a training prompt. compared, judged_before, judged_after:
    verdicts on the two policies. judge_quality: of a judge that has to prove itself. metrics: all
    figures.
    """

    prompts: DatasetRef | None = None
    completions: DatasetRef | None = None
    people: DatasetRef | None = None
    verdicts: DatasetRef | None = None
    acceptances: DatasetRef | None = None
    comparisons: DatasetRef | None = None
    pairs: DatasetRef | None = None
    judgements: DatasetRef | None = None
    judge_quality: DatasetRef | None = None
    held_out: DatasetRef | None = None
    before: DatasetRef | None = None
    after: DatasetRef | None = None
    overlap: DatasetRef | None = None
    compared: DatasetRef | None = None
    judged_before: DatasetRef | None = None
    judged_after: DatasetRef | None = None
    metrics: DatasetRef | None = None

    def refs(self) -> list[DatasetRef]:
        """The datasets that there are."""
        return [ref for ref in vars(self).values() if ref is not None]

    def judged(self) -> list[DatasetRef]:
        """The answers that the judge who labels was asked about."""
        return [ref for ref in (self.completions, self.people) if ref is not None]

    @property
    def learned(self) -> DatasetRef:
        """What the policy learned from: pairs, or the prompts of what made none."""
        learned = self.pairs or self.prompts
        assert learned is not None, "an iteration learns from something"
        return learned


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Where a run stands when an iteration begins.

    recipe: as it is in this iteration. iteration: counted from 1. policy: the one of the iteration
    before. initial: the first of all. earlier: the iterations before.
    """

    recipe: Recipe
    iteration: int
    policy: ModelRef
    initial: ModelRef
    earlier: tuple[IterationData, ...] = ()

    @property
    def data(self) -> Data:
        """What the iteration learns from."""
        return self.recipe.data_of(self.iteration)

    @property
    def seed(self) -> int:
        """The iteration's own."""
        return derive_seed(self.recipe.seed, self.iteration)

    @property
    def start(self) -> ModelRef:
        """The weights that training starts from."""
        return self.policy if self.recipe.init == "previous" else self.initial

    @property
    def reference(self) -> ModelRef:
        """The policy that the loss is taken against."""
        return self.policy if self.recipe.reference == "previous" else self.initial

    def at(self, iteration: int) -> "Standing":
        """The same recipe in another iteration."""
        return replace(self, iteration=iteration)
