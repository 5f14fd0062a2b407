"""The recipes: one entry per method. A new one is a value here; its choices are explained in
flows/recipes/recipe.py.
"""

from typing import Any

from dapflow.flows.recipes.prompts import Prompts
from dapflow.flows.recipes.recipe import Evaluation, Improve, Recipe, Then
from dapflow.storage import UserError
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.policy import SelfJudge
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.pairing.acceptance import Acceptance
from dapflow.tasks.pairing.pairs import Pairing
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.sweep import Sweep
from dapflow.tasks.self_instruct.settings import SelfInstruct
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Rounds, Training

_BRIEF = "You are a helpful assistant. Answer in one to three sentences."
_ANSWER = Sampling(n=1, temperature=0.7, top_k=40, max_tokens=56, system=_BRIEF)

RSO = Recipe(
    name="rso",
    title="statistical rejection sampling optimisation",
    paper="Liu et al. 2024, arXiv 2309.06657",
    prompts=Prompts(per_iteration=64, held_out=96),
    sampling=_ANSWER.model_copy(update={"n": 16}),
    acceptance=Acceptance(rule="rso", beta=1.0, keep=4),
    pairing=Pairing(rule="first-round"),
    loss=Loss.of("sigmoid_norm", beta=0.05),
    training=Training(learning_rate=1e-5, warmup_steps=4, batch_size=8, epochs=2),
    reward=RewardModel(layers=8),
    evaluation=Evaluation(
        sampling=_ANSWER.model_copy(update={"n": 4}), judge=RewardModel(layers=12)
    ),
)

RSO_HINGE = RSO.model_copy(
    update={
        "name": "rso-hinge",
        "title": f"{RSO.title}, hinge-norm loss",
        "loss": Loss.of("hinge_norm", gamma=0.05),
    }
)

SFT_SAMPLE_RANK = RSO.model_copy(
    update={
        "name": "sft-sample-rank",
        "title": "the policy's own samples ranked, without rejection sampling: as many as RSO keeps",
        "sampling": RSO.sampling.model_copy(update={"n": RSO.acceptance.keep}),
        "acceptance": Acceptance(rule="all"),
    }
)


def _scaled(**changes: Any) -> dict[str, Any]:
    """What every method has in common here: data, sizes and rates for a model of 135M weights."""
    common = {
        "prompts": RSO.prompts,
        "training": RSO.training,
        "reward": RSO.reward,
        "evaluation": RSO.evaluation,
        "sampling": _ANSWER,
    }
    return common | changes


DPO = Recipe(
    **_scaled(),
    name="dpo",
    title="direct preference optimisation on people's pairs",
    paper="Rafailov et al. 2023, arXiv 2305.18290",
    data=("preferences",),
    judge=None,
    loss=Loss.of("sigmoid_norm", beta=0.1),
)

IPO = DPO.model_copy(
    update={
        "name": "ipo",
        "title": "identity preference optimisation on people's pairs",
        "paper": "Azar et al. 2023, arXiv 2310.12036",
        "loss": Loss.of("ipo", tau=0.1),
    }
)

RSO_DIRECT = DPO.model_copy(
    update={
        "name": "rso-direct",
        "title": "RSO's loss on people's pairs, without samples",
        "paper": RSO.paper,
        "loss": RSO.loss,
    }
)

SLIC_HF = DPO.model_copy(
    update={
        "name": "slic-hf",
        "title": "sequence likelihood calibration on people's pairs (SLiC-HF direct)",
        "paper": "Zhao et al. 2023, arXiv 2305.10425",
        "loss": Loss.of("slic_hf", delta=1.0, lambda_=0.01),
    }
)

SLIC_HF_SAMPLE_RANK = SLIC_HF.model_copy(
    update={
        "name": "slic-hf-sample-rank",
        "title": "sequence likelihood calibration on the policy's own samples, ranked by knockout",
        "data": ("samples",),
        "judge": RewardModel(),
        "sampling": RSO.sampling,
        "acceptance": Acceptance(rule="all"),
        "pairing": Pairing(rule="tournament"),
    }
)

ITERATIVE_DPO = Recipe(
    **_scaled(sampling=RSO.sampling.model_copy(update={"n": 4})),
    name="iterative-dpo",
    title=(
        "DPO on people's pairs, then also on own samples, best against worst by a frozen reward "
        "model"
    ),
    paper="Xu et al. 2023, arXiv 2312.16682, section 4",
    data=("preferences", "samples"),
    judge=RewardModel(),
    acceptance=Acceptance(rule="all"),
    pairing=Pairing(rule="best-worst"),
    loss=Loss.of("sigmoid_norm", beta=0.1),
    reference="previous",
    pool="all",
)

PAIRWISE_CRINGE = ITERATIVE_DPO.model_copy(
    update={
        "name": "pairwise-cringe",
        "title": "the pairwise Cringe loss on people's pairs, then also on own samples, best against worst",
        "paper": "Xu et al. 2023, arXiv 2312.16682",
        "loss": Loss.of("pairwise_cringe", b=-10.0, tau=10.0, alpha=0.005, k=5),
    }
)

REJECTION_SAMPLING = Recipe(
    **_scaled()
    | {
        "training": Training(
            learning_rate=2e-5, batch_size=8, epochs=2, schedule="cosine", weight_decay=0.1
        ),
        "reward": RewardModel(layers=8, margins="small"),
        "sampling": _ANSWER.model_copy(update={"n": 8, "top_k": 0}),
    },
    name="rejection-sampling",
    title=(
        "fine-tuning of the initial policy on the best of N, over the samples of all iterations; "
        "from the fifth on PPO"
    ),
    paper="Touvron et al. 2023 (Llama 2), arXiv 2307.09288, section 3.2.3",
    sweep=Sweep(temperatures=(0.7, 1.0, 1.3), prompts=8),
    trains_on="answers",
    acceptance=Acceptance(rule="best"),
    loss=Loss.of("nll"),
    rounds=Rounds(count=24, prompts=32, minibatches=8),
    init="initial",
    pool="all",
    then=Then(
        iteration=5,
        changes={
            "data": "rounds",
            "sampling": {"n": 1, "temperature": 1.0},
            "sweep": {"temperatures": []},
            "acceptance": {"rule": "all"},
            "loss": {"name": "ppo", "beta": 0.01},
            "training": {"learning_rate": 5e-6, "epochs": 1, "schedule": "constant"},
            "init": "previous",
            "pool": "new",
        },
    ),
)

REST = Recipe(
    **_scaled(sampling=_ANSWER.model_copy(update={"n": 8})),
    name="rest",
    title="reinforced self-training: grow by own samples, improve on those above rising thresholds",
    paper="Gulcehre et al. 2023, arXiv 2308.08998",
    trains_on="answers",
    acceptance=Acceptance(rule="threshold"),
    improve=Improve(thresholds=(0.5, 0.7, 0.85), learning_rate_share=0.5),
    loss=Loss.of("nll"),
    pool="all",
)

RRHF = Recipe(
    **_scaled()
    | {
        "training": Training(
            learning_rate=2e-5, batch_size=8, epochs=3, schedule="cosine", warmup_steps=1
        ),
        "sampling": _ANSWER.model_copy(update={"n": 4, "temperature": 0.8, "top_k": 0}),
    },
    name="rrhf",
    title="ranking of people's answers and own samples in one list each",
    paper="Yuan et al. 2023, arXiv 2304.05302",
    data=("lists",),
    trains_on="answers",
    acceptance=Acceptance(rule="all"),
    loss=Loss.of("rrhf", rank_weight=1.0),
)

SPIN = Recipe(
    **_scaled()
    | {
        "training": Training(learning_rate=2e-5, batch_size=8, epochs=2, warmup_steps=2),
        "sampling": _ANSWER.model_copy(update={"temperature": 1.0, "top_k": 0}),
        "prompts": RSO.prompts.model_copy(update={"schedule": "same"}),
    },
    name="spin",
    title="self-play: people's answers against those of the previous iterate, which is the reference",
    paper="Chen et al. 2024, arXiv 2401.01335",
    data=("gold",),
    judge=None,
    loss=Loss.of("spin", lambda_=0.1),
    reference="previous",
    pool="last-two",
    then=Then(iteration=4, changes={"loss": {"name": "spin", "lambda_": 5.0}}),
)

CLICK = Recipe(
    **_scaled()
    | {
        "training": Training(learning_rate=2e-5, batch_size=8, epochs=2),
        "sampling": _ANSWER.model_copy(
            update={"n": 8, "temperature": 1.0, "top_p": 0.9, "top_k": 0}
        ),
    },
    name="click",
    title="contrast of own samples that a classifier calls good with likelier ones that it calls bad",
    paper="Zheng et al. 2023, arXiv 2306.03350",
    judge=RewardModel(),
    acceptance=Acceptance(rule="all"),
    pairing=Pairing(rule="contrast"),
    loss=Loss.of("click", margin=20.0, hinge_weight=0.5),
)

_GENERATE = SelfInstruct(
    sampling=SelfInstruct().sampling.model_copy(update={"temperature": 0.6, "top_p": 0.9})
)

SELF_REWARDING = Recipe(
    **_scaled(
        sampling=_ANSWER.model_copy(update={"n": 4, "top_p": 0.9, "top_k": 0}),
        prompts=RSO.prompts.model_copy(update={"schedule": "self-instruct", "generate": _GENERATE}),
    ),
    name="self-rewarding",
    title=(
        "imitation of people's best answers and of judgements like theirs; then the policy judges "
        "its own samples, DPO from and against itself"
    ),
    paper="Yuan et al. 2024, arXiv 2401.10020",
    data=("seeds", "samples"),
    judge=SelfJudge(),
    acceptance=Acceptance(rule="all"),
    pairing=Pairing(rule="best-worst"),
    loss=Loss.of("sigmoid_norm", beta=0.1),
    reference="previous",
)

OAIF = Recipe(
    **_scaled()
    | {
        "sampling": _ANSWER.model_copy(update={"n": 2, "temperature": 0.9, "top_k": 0}),
        "prompts": RSO.prompts.model_copy(update={"schedule": "same"}),
    },
    name="oaif",
    title=(
        "online feedback, by a reward model or an LLM: two samples judged, one optimiser step, and "
        "again, against a fixed reference"
    ),
    paper="Guo et al. 2024, arXiv 2402.04792",
    data=("rounds",),
    judge=RewardModel(),
    acceptance=Acceptance(rule="all"),
    loss=Loss.of("sigmoid_norm", beta=0.1),
    rounds=Rounds(count=24, prompts=8),
)

OAIF_IPO = OAIF.model_copy(
    update={"name": "oaif-ipo", "title": f"{OAIF.title}, IPO loss", "loss": Loss.of("ipo", tau=1.0)}
)

OAIF_SLIC = OAIF.model_copy(
    update={
        "name": "oaif-slic",
        "title": f"{OAIF.title}, hinge-norm loss",
        "loss": Loss.of("hinge_norm", gamma=0.002),
    }
)

RLOO = Recipe(
    **_scaled(sampling=_ANSWER.model_copy(update={"n": 4, "temperature": 1.0, "top_k": 0})),
    name="rloo",
    title="reward model, then REINFORCE with a leave-one-out baseline and a KL penalty",
    paper="Ahmadian et al. 2024, arXiv 2402.14740",
    data=("rounds",),
    trains_on="answers",
    judge=RewardModel(),
    acceptance=Acceptance(rule="all"),
    loss=Loss.of("reinforce", beta=0.05),
    rounds=Rounds(count=24, prompts=8),
)

RLHF = RLOO.model_copy(
    update={
        "name": "rlhf",
        "title": "reward model, then PPO with a value model and a KL penalty at each token",
        "paper": "Ouyang et al. 2022, arXiv 2203.02155",
        "sampling": RLOO.sampling.model_copy(update={"n": 1}),
        "loss": Loss.of("ppo", beta=0.02),
        "rounds": Rounds(count=24, prompts=32, minibatches=8),
        "training": RLOO.training.model_copy(update={"learning_rate": 5e-6}),
    }
)

_VALUE_BASELINE = Loss.of(
    "ppo", beta=0.05, lambda_=1.0
)  # with one step a round the ratio is 1: REINFORCE with a value baseline

RLAIF = RLOO.model_copy(
    update={
        "name": "rlaif",
        "title": "an LLM labels own samples, a reward model learns its soft labels, then REINFORCE with a value baseline",
        "paper": "Lee et al. 2023, arXiv 2309.00267",
        "judge": LLM(endpoint=Endpoint(model="gpt-4.1-mini")),
        "annotated_prompts": 96,
        "loss": _VALUE_BASELINE,
    }
)

RLAIF_DIRECT = RLOO.model_copy(
    update={
        "name": "rlaif-direct",
        "title": "REINFORCE with a value baseline on the scores, 1 to 10, that an LLM gives",
        "paper": "Lee et al. 2023, arXiv 2309.00267, section 2.3",
        "judge": LLM(endpoint=Endpoint(model="gpt-4.1-mini"), mode="ten"),
        "loss": _VALUE_BASELINE,
    }
)

_ALL = (
    RSO,
    RSO_HINGE,
    SFT_SAMPLE_RANK,
    REJECTION_SAMPLING,
    ITERATIVE_DPO,
    PAIRWISE_CRINGE,
    SELF_REWARDING,
    OAIF,
    OAIF_IPO,
    OAIF_SLIC,
)
_ALL += (
    DPO,
    RSO_DIRECT,
    IPO,
    SLIC_HF,
    SLIC_HF_SAMPLE_RANK,
    RRHF,
    CLICK,
    SPIN,
    REST,
    RLHF,
    RLOO,
    RLAIF,
    RLAIF_DIRECT,
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name. Raises UserError that lists the names."""
    if name not in RECIPES:
        raise UserError(f"There is no recipe `{name}`: choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]
