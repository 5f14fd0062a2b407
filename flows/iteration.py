"""One iteration of any recipe: one DAG, from the prompts to the measured new policy. It reads as
the algorithm.

policy' = iterate(recipe, t, policy, initial)
"""

from prefect import flow

from dapflow.flows.judges import Named, Who, judge_named, needs_baseline
from dapflow.flows.labelling import label, scored
from dapflow.flows.learning import LEARN, Now
from dapflow.flows.measuring import Candidate, harnessed, measure, opponents_of, tasks_of
from dapflow.flows.recipes.changes import at
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.self_judge import checked
from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.models.policy import register_endpoint
from dapflow.tasks.prompts.load import PROMPTS_FILE, SEEDS_FILE, load_prompts
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.sampling.sweep import choose_temperature
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.self_instruct.steps import self_instruct
from dapflow.tasks.training.reward.train import train_reward_model


class Iteration:
    """What an iteration hands on: the new policy, the datasets it came from, and who judged."""

    def __init__(
        self, policy: ModelRef, parts: dict[str, DatasetRef], judges: dict[str, Who]
    ) -> None:
        self.policy = policy
        self.parts = parts
        self.judges = judges


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
    earlier: list[dict[str, DatasetRef]],
) -> Iteration:
    """Policy t -> policy t+1, and how much better it is."""
    r = at(recipe, iteration)
    prompts, held_out = prompts_of(r, iteration, initial)
    opponents = opponents_of(
        r, held_out, policy, initial
    )  # first of all: one that is not there should cost no training
    tasks, benchmarks = tasks_of(r), harnessed(r, policy)
    wanted = scorer_of(r, policy, initial)
    scorer, measured_judge = checked(
        r,
        wanted,
        policy,
        initial,
        earlier[-1].get("judge_quality") if earlier else None,
        labels=r.data_of(iteration) != "seeds",
    )

    now = standing(r, iteration, policy, initial, prompts, held_out, scorer, earlier)
    trained, parts = LEARN[r.data_of(iteration)](now)

    referee = referee_of(r, policy, initial)
    candidate = Candidate(
        policy=trained,
        before=policy,
        start=now.start,
        initial=initial,
        learned=[one.get("pairs", one.get("prompts", prompts)) for one in (*earlier, parts)],
        judged=[]
        if scorer is None
        else [parts[name] for name in ("completions", "people") if name in parts],
        scorer=scorer,
        referee=referee,
        scorer_baseline=baseline_of(r, initial, held_out, labeller_of(r)),
        referee_baseline=lambda some: baseline_of(r, initial, some, r.evaluation.judge),
        opponents=opponents,
        tasks=tasks,
        harnessed=benchmarks,
    )
    measured = measure(r, held_out, candidate)
    judges = {
        "training": scorer,
        "evaluation": referee,
        "self": None if wanted is scorer else wanted,
    }
    return Iteration(
        trained,
        {**parts, **measured_judge, **measured},
        {role: who for role, who in judges.items() if who is not None},
    )


def standing(
    r: Recipe,
    iteration: int,
    policy: ModelRef,
    initial: ModelRef,
    prompts: DatasetRef,
    held_out: DatasetRef,
    scorer: Who | None,
    earlier: list[dict[str, DatasetRef]],
) -> Now:
    """Where the run stands when an iteration begins to learn. r: the recipe as it is in that
    iteration.
    """
    seed = derive_seed(r.seed, iteration)
    speaker = policy if r.sampler.of_the_policy else register_endpoint(r.sampler.endpoint.model)
    return Now(
        recipe=r,
        iteration=iteration,
        policy=policy,
        initial=initial,
        speaker=speaker,
        prompts=prompts,
        held_out=held_out,
        scorer=scorer,
        seed=seed,
        baseline=lambda some: baseline_of(r, initial, some, labeller_of(r)),
        sweep=lambda: sweep_of(r, iteration, speaker, initial, scorer, seed),
        earlier=earlier,
    )


def prompts_of(recipe: Recipe, iteration: int, initial: ModelRef) -> tuple[DatasetRef, DatasetRef]:
    """The prompts this iteration trains on, and the held-out ones."""
    p, source = recipe.prompts, find_source(recipe.prompts.source, PROMPTS_FILE)
    held_out = load_prompts(source.name, source.digest, "held_out", p.held_out)
    if p.schedule == "self-instruct" and recipe.answers_prompts(iteration):
        return new_prompts(recipe, iteration, initial, held_out), held_out
    return slice_of(recipe, iteration, p.per_iteration), held_out


def new_prompts(
    recipe: Recipe, iteration: int, initial: ModelRef, held_out: DatasetRef
) -> DatasetRef:
    """Prompts that the initial policy makes for this iteration, none like those it made for the
    iterations before.
    """
    p, made = recipe.prompts, list[DatasetRef]()
    name, shipped, skipped = (
        (p.generate.seeds, SEEDS_FILE, 0)
        if p.generate.seeds
        else (p.source, PROMPTS_FILE, p.held_out)
    )
    source = find_source(name, shipped)
    seeds = load_prompts(source.name, source.digest, "train", skipped, shipped=shipped)
    aside = [held_out, *(tasks for _, tasks in tasks_of(recipe).values())]
    for number in filter(recipe.answers_prompts, range(1, iteration + 1)):
        seed = derive_seed(recipe.seed, number)
        made.append(
            self_instruct(
                initial,
                seeds,
                aside,
                list(made),
                p.generate,
                p.per_iteration,
                seed,
                recipe.sampler.own,
            )
        )
    return made[-1]


def slice_of(recipe: Recipe, iteration: int, count: int) -> DatasetRef:
    """The first `count` prompts of the iteration's slice."""
    p, source = recipe.prompts, find_source(recipe.prompts.source, PROMPTS_FILE)
    first = (iteration - 1) * p.per_iteration if p.schedule == "next" else 0
    return load_prompts(source.name, source.digest, "train", p.held_out, first, count)


def sweep_of(
    recipe: Recipe,
    iteration: int,
    speaker: ModelRef,
    initial: ModelRef,
    scorer: Who | None,
    seed: int,
) -> DatasetRef | None:
    """The temperature that suits this iteration's policy, tried on a few of its prompts."""
    if scorer is None or not recipe.sweep.temperatures:
        return None
    few = slice_of(recipe, iteration, min(recipe.sweep.prompts, recipe.prompts.per_iteration))
    baseline = baseline_of(recipe, initial, few, labeller_of(recipe))
    tried = [
        recipe.sampling.model_copy(update={"temperature": temperature})
        for temperature in recipe.sweep.temperatures
    ]
    answers = [sample(speaker, few, sampling, seed, recipe.sampler) for sampling in tried]
    verdicts = [scored(few, completions, scorer, baseline) for completions in answers]
    return choose_temperature(answers, verdicts, recipe.sweep.temperatures)


def labeller_of(recipe: Recipe) -> Named:
    """The judge that labels what is trained on, as the recipe names it: with annotated prompts the
    reward model that learned from them.
    """
    return "reward-model" if recipe.annotated_prompts else recipe.judge


def scorer_of(recipe: Recipe, policy: ModelRef, initial: ModelRef) -> Who | None:
    """Who labels what is trained on; None where people have."""
    if recipe.judge == "none":
        return None
    if recipe.annotated_prompts:
        return _taught(recipe, policy, initial)
    return judge_named(recipe, recipe.judge, policy, initial, "reward")


def _taught(recipe: Recipe, policy: ModelRef, initial: ModelRef) -> ModelRef:
    """A reward model that learned from the judge's labels on samples of the initial policy (RLAIF,
    arXiv 2309.00267).
    """
    annotator = judge_named(recipe, recipe.judge, policy, initial, "reward")
    prompts, seed = (
        slice_of(recipe, 1, recipe.annotated_prompts),
        derive_seed(recipe.seed, "annotation"),
    )
    completions = sample(initial, prompts, recipe.sampling, seed, recipe.sampler.own)
    pairs = label(
        recipe,
        prompts,
        completions,
        annotator,
        baseline_of(recipe, initial, prompts, recipe.judge),
        seed,
    )["pairs"]
    source = find_source(recipe.preferences.source, PREFERENCES_FILE)
    test = load_preferences(source.name, source.digest, "test")
    return train_reward_model(initial, pairs, test, recipe.reward, recipe.seed)


def baseline_of(
    recipe: Recipe, initial: ModelRef, prompts: DatasetRef, named: Named
) -> DatasetRef | None:
    """One answer of the initial policy to each prompt, for a judge that compares with it."""
    if not needs_baseline(recipe, named):
        return None
    one = recipe.sampling.model_copy(update={"n": 1})
    return sample(initial, prompts, one, derive_seed(recipe.seed, "baseline"), recipe.sampler.own)


def referee_of(recipe: Recipe, policy: ModelRef, initial: ModelRef) -> Who:
    """Who measures the result: never the judge that labelled the training pairs, unless the recipe
    says so.
    """
    return judge_named(recipe, recipe.evaluation.judge, policy, initial, "judge")
