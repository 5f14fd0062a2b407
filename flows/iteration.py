"""One iteration of any recipe: one DAG, from the prompts to the measured new policy.

policy' = iterate(recipe, t, policy, initial, earlier)
"""

from dataclasses import dataclass, replace

from prefect import flow

from dapflow.flows.judging.seating import labeller_of, referee_of
from dapflow.flows.learning import LEARN
from dapflow.flows.measuring import Candidate, measure, yardsticks_of
from dapflow.flows.prompting import prompts_of
from dapflow.flows.recipes.changes import at
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.standing import IterationData, Standing
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.spec import Seated


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """What an iteration hands on: the new policy, the datasets it came from, and who judged.

    judges: by role: `training`, `evaluation`, and `self` for a policy that has not proved itself.
    """

    policy: ModelRef
    data: IterationData
    judges: dict[str, Seated]

    @property
    def metrics(self) -> DatasetRef:
        """All figures."""
        assert self.data.metrics is not None, "an iteration ends with its measurement"
        return self.data.metrics


@flow(
    name="iteration",
    flow_run_name="{recipe.name} iteration {iteration}",
    validate_parameters=False,
    persist_result=False,
)
def iterate(
    recipe: Recipe,
    iteration: int,
    policy: ModelRef,
    initial: ModelRef,
    earlier: list[IterationData],
) -> Iteration:
    """Policy t -> policy t+1, and how much better it is: prompts, samples, verdicts, training (how,
    learning.py says for each kind of data), measurement.
    """
    here = Standing(
        recipe=at(recipe, iteration),
        iteration=iteration,
        policy=policy,
        initial=initial,
        earlier=tuple(earlier),
    )
    given = prompts_of(here)
    yardsticks = yardsticks_of(here, given)  # what is missing there should cost no training
    labeller = labeller_of(here)
    trained, data = LEARN[here.data](here, given, labeller.judge)
    referee = referee_of(here)
    candidate = Candidate(here=here, policy=trained, data=data, labeller=labeller.judge)
    measured = measure(candidate, given, yardsticks, referee)
    judges = {"training": labeller.judge, "evaluation": referee}
    if labeller.named is not labeller.judge:
        judges["self"] = labeller.named
    return Iteration(
        policy=trained,
        data=replace(measured, judge_quality=labeller.quality),
        judges={role: judge for role, judge in judges.items() if judge is not None},
    )
