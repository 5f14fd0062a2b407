"""One iteration of any recipe: one DAG, from the prompts to the measured new policy. It reads as the algorithm.

policy' = iterate(recipe, t, policy, initial)
"""

from prefect import flow

from flows.recipe import Recipe
from storage import DatasetRef, ModelRef
from tasks.acceptance import accept
from tasks.evaluation import evaluate
from tasks.judging import judge
from tasks.pairing import pair
from tasks.preferences import PREFERENCES_FILE, Part, load_preferences
from tasks.prompts import PROMPTS_FILE, load_prompts
from tasks.sampling import sample
from tasks.seeds import derive_seed
from tasks.sources import find_source
from tasks.training.reward import RewardModel, train_reward_model
from tasks.training.train import train


class Iteration:
    """What an iteration hands on: the new policy, the datasets it came from, and who judged."""

    def __init__(self, policy: ModelRef, parts: dict[str, DatasetRef], judges: dict[str, ModelRef | str]) -> None:
        self.policy = policy
        self.parts = parts
        self.judges = judges


@flow(name="iteration", flow_run_name="{recipe.name} iteration {iteration}", validate_parameters=False, persist_result=False)
def iterate(recipe: Recipe, iteration: int, policy: ModelRef, initial: ModelRef, earlier_pairs: list[DatasetRef]) -> Iteration:
    """Policy t -> policy t+1, and how much better it is."""
    r, seed = recipe, derive_seed(recipe.seed, iteration)
    prompts, held_out = prompts_of(r, iteration)
    scorer = scorer_of(r, policy, initial)

    completions = sample(policy, prompts, r.sampling, seed)
    verdicts = judge(prompts, completions, scorer)
    acceptances = accept(completions, verdicts, r.acceptance, seed)
    pairs = pair(prompts, completions, acceptances, r.pairing, seed)
    trained = train(
        policy=policy if r.init == "previous" else initial,
        reference=policy if r.reference == "previous" else initial,
        pairs=[*(earlier_pairs if r.pool == "all" else []), pairs],
        loss=r.loss,
        training=r.training,
        system=r.sampling.system,
        seed=seed,
    )

    referee = referee_of(r, initial)
    before = sample(policy, held_out, r.evaluation.sampling, r.seed)
    after = sample(trained, held_out, r.evaluation.sampling, r.seed)
    judged_before, judged_after = judge(held_out, before, referee), judge(held_out, after, referee)
    metrics = evaluate(
        trained,
        before=before,
        after=after,
        judged_before=judged_before,
        judged_after=judged_after,
        reward_before=judge(held_out, before, scorer),
        reward_after=judge(held_out, after, scorer),
        seed=r.seed,
    )
    sampled = {"completions": completions, "verdicts": verdicts, "acceptances": acceptances, "pairs": pairs}
    measured = {"before": before, "after": after, "judged_before": judged_before, "judged_after": judged_after, "metrics": metrics}
    return Iteration(trained, {**sampled, "held_out": held_out, **measured}, {"training": scorer, "evaluation": referee})


def prompts_of(recipe: Recipe, iteration: int) -> tuple[DatasetRef, DatasetRef]:
    """The slice of prompts this iteration trains on, and the held-out ones."""
    p, source = recipe.prompts, find_source(recipe.prompts.source, PROMPTS_FILE)
    first = (iteration - 1) * p.per_iteration if p.schedule == "next" else 0
    prompts = load_prompts(source.name, source.digest, "train", p.held_out, first, p.per_iteration)
    return prompts, load_prompts(source.name, source.digest, "held_out", p.held_out)


def scorer_of(recipe: Recipe, policy: ModelRef, initial: ModelRef) -> ModelRef | str:
    """Who labels the training pairs."""
    if recipe.judge == "reward-model":
        return _reward_model(recipe, recipe.reward, initial, "reward")
    return policy if recipe.judge == "policy" else recipe.judge


def referee_of(recipe: Recipe, initial: ModelRef) -> ModelRef | str:
    """Who measures the result: never the judge that labelled the training pairs, unless the recipe says so."""
    by = recipe.evaluation.judge
    return _reward_model(recipe, by, initial, "judge") if isinstance(by, RewardModel) else by


def _reward_model(recipe: Recipe, settings: RewardModel, backbone: ModelRef, part: Part) -> ModelRef:
    source = find_source(recipe.preferences.source, PREFERENCES_FILE)
    labelled = load_preferences(source.name, source.digest, part)
    test = load_preferences(source.name, source.digest, "test")
    return train_reward_model(backbone, labelled, test, settings, recipe.seed)
