"""The recipes: one entry per method. A new one is a value here; its choices are explained in flows/recipe.py."""

from flows.recipe import Evaluation, Recipe
from storage import UserError
from tasks.acceptance import Acceptance
from tasks.engines.base import Sampling
from tasks.pairing import Pairing
from tasks.prompts import Prompts
from tasks.training.losses import Loss
from tasks.training.settings import RewardModel, Training

_BRIEF = "You are a helpful assistant. Answer in one to three sentences."
_ANSWER = Sampling(n=1, temperature=0.7, top_k=40, max_tokens=56, system=_BRIEF)

RSO = Recipe(
    name="rso",
    title="statistical rejection sampling optimisation",
    paper="Liu et al. 2024, arXiv 2309.06657",
    prompts=Prompts(per_iteration=48, held_out=64),
    sampling=_ANSWER.model_copy(update={"n": 8}),
    acceptance=Acceptance(rule="rso", beta=0.5, keep=4),
    pairing=Pairing(rule="first-round"),
    loss=Loss.of("sigmoid_norm", beta=0.1),
    training=Training(learning_rate=2e-5, batch_size=8),
    reward=RewardModel(layers=8),
    evaluation=Evaluation(sampling=_ANSWER, judge=RewardModel(layers=12)),
)

RSO_HINGE = RSO.model_copy(
    update={"name": "rso-hinge", "title": f"{RSO.title}, hinge-norm loss", "loss": Loss.of("hinge_norm", gamma=0.05)}
)

SFT_SAMPLE_RANK = RSO.model_copy(
    update={
        "name": "sft-sample-rank",
        "title": "the policy's own samples ranked, without rejection sampling",
        "acceptance": Acceptance(rule="all"),
    }
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (RSO, RSO_HINGE, SFT_SAMPLE_RANK)}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises UserError that lists the names."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe `{name}`: choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def toy(recipe: Recipe) -> Recipe:
    """The same DAG on a toy model made on the spot: seconds, to check an installation. It aligns nothing worth having."""
    small = {"max_tokens": 12, "n": min(recipe.sampling.n, 4)}
    answer = recipe.evaluation.sampling.model_copy(update={"max_tokens": 12})
    shallow = {"layers": 1}
    judge, generate = recipe.evaluation.judge, recipe.prompts.generate
    few = {"from_seeds": 3, "from_machine": 1, "sampling": generate.sampling.model_copy(update={"max_tokens": 40})}
    return recipe.model_copy(
        update={
            "policy": "toy",
            "prompts": recipe.prompts.model_copy(update={"per_iteration": 12, "held_out": 16, "generate": generate.model_copy(update=few)}),
            "sampling": recipe.sampling.model_copy(update=small),
            "reward": recipe.reward.model_copy(update=shallow),
            "training": recipe.training.model_copy(update={"learning_rate": 2e-4}),
            "evaluation": recipe.evaluation.model_copy(
                update={"sampling": answer, "judge": judge.model_copy(update=shallow) if isinstance(judge, RewardModel) else judge}
            ),
        }
    )
