"""Any recipe on a toy model made on the spot: the same DAG in seconds, to check an installation."""

from dapflow.flows.recipes.recipe import Recipe
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.judging.spec import JudgeSpec


def toy(recipe: Recipe) -> Recipe:
    """The same DAG on a toy model made on the spot: seconds, to check an installation. It aligns
    nothing worth having.

    It can judge nothing either, and asks nobody over the network: where a language model would
    judge, a program does.
    """
    small = {"max_tokens": 12, "n": min(recipe.sampling.n, 4)}
    answer = recipe.evaluation.sampling.model_copy(update={"max_tokens": 12, "n": 1})
    shallow = {"layers": 1}
    judge, generate = recipe.evaluation.judge, recipe.prompts.generate
    few = {
        "from_seeds": 3,
        "from_machine": 1,
        "sampling": generate.sampling.model_copy(update={"max_tokens": 40}),
    }
    return recipe.model_copy(
        update={
            "policy": "toy",
            "rounds": recipe.rounds.model_copy(
                update={
                    "count": min(recipe.rounds.count, 3),
                    "prompts": min(recipe.rounds.prompts, 4),
                }
            ),
            "annotated_prompts": min(recipe.annotated_prompts, 24),
            "prompts": recipe.prompts.model_copy(
                update={
                    "per_iteration": 12,
                    "held_out": 16,
                    "generate": generate.model_copy(update=few),
                }
            ),
            "sampling": recipe.sampling.model_copy(update=small),
            "judgements": recipe.judgements.model_copy(
                update={
                    "prompts": 6,
                    "sampling": recipe.judgements.sampling.model_copy(update={"max_tokens": 12}),
                }
            ),
            "reward": recipe.reward.model_copy(update=shallow),
            "training": recipe.training.model_copy(
                update={
                    "stop": recipe.training.stop.model_copy(update={"every": 1, "set_aside": 4}),
                    "learning_rate": 2e-4
                    if recipe.trains_on == "pairs" and "rounds" not in recipe.data
                    else 5e-5,
                    "warmup_steps": 0,
                    "epochs": 1,
                }
            ),
            "judge": recipe.judge and _on_toy(recipe.judge),
            "evaluation": recipe.evaluation.model_copy(
                update={
                    "sampling": answer,
                    "judge": judge.on_toy(),
                    "instructions": recipe.evaluation.instructions.model_copy(
                        update={"prompts": 8, "max_tokens": 12}
                    ),
                }
            ),
        }
    )


def _on_toy(judge: JudgeSpec) -> JudgeSpec:
    """A reward model without settings of its own stays the recipe's."""
    return judge if judge == RewardModel() else judge.on_toy()
