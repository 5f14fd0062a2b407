"""A recipe: one alignment method as a frozen value that names its choices. There is no branch on a
method's name anywhere.

RSO_HINGE = RSO.model_copy(update={"name": "rso-hinge", "loss": Loss.of("hinge_norm", gamma=0.05)})
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from dapflow.flows.recipes.gate import Gate
from dapflow.flows.recipes.prompts import Prompts
from dapflow.tasks.evaluation.contamination import Overlap
from dapflow.tasks.evaluation.exact import Exact
from dapflow.tasks.evaluation.harness import Harness
from dapflow.tasks.evaluation.instructions import Instructions
from dapflow.tasks.evaluation.two_turns import TwoTurns
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.judging.kinds import AnyJudge
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.pairing.acceptance import Acceptance
from dapflow.tasks.pairing.pairs import Pairing
from dapflow.tasks.pairing.self_rewarding import EvaluationData
from dapflow.tasks.prompts.preferences import Preferences
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sweep import Sweep
from dapflow.tasks.step.shards import Shards
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Rounds, Training

Item = TypeVar("Item")


class Evaluation(BaseModel):
    """How the new policy is measured against the old one on the held-out prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sampling: Sampling = Field(
        default=Sampling(n=1),
        description="answers of each policy per held-out prompt: n of them, each with a seed of its own",
    )
    judge: AnyJudge = Field(
        default=RewardModel(),
        description="`reward-model` (trained on preferences of its own), `models@...`, a program, "
        "`llm`, `composite` or `human`, or settings with their `kind`",
    )
    baselines: tuple[str, ...] = Field(
        default=("initial",),
        description="whom it is measured against beside the previous policy: `initial`, `promoted`, a policy's id, or a file of answers",
    )
    probes: int = Field(
        default=16,
        ge=0,
        description="answers that the KL to the initial policy, and pairs that displacement, is measured on",
    )
    overlap: Overlap = Overlap()
    exact: Exact = Exact()
    instructions: Instructions = Instructions()
    two_turns: TwoTurns = TwoTurns()
    harness: Harness = Harness()

    @field_validator("judge")
    @classmethod
    def _may_measure(cls, value: JudgeSpec) -> JudgeSpec:
        if not value.may_measure:
            raise ValueError(f"{value}: a judge of this kind labels, and does not measure")
        return value


Data = Literal["samples", "preferences", "gold", "lists", "rounds", "seeds"]


class Improve(BaseModel):
    """Several trainings on one iteration's samples, each on the better ones only (the improve steps
    of ReST).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    thresholds: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        default=(),
        description="acceptance.threshold of each training, one after the other; empty: one training, with acceptance as it is",
    )
    learning_rate_share: float = Field(
        default=0.5, gt=0, le=1, description="of the training before, at each further one"
    )


class Then(BaseModel):
    """What a method does differently once it has come so far."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    iteration: int = Field(ge=2, description="the first to which the changes apply, counted from 1")
    changes: dict[str, Any] = Field(
        description="keys of the recipe with other values, nested as in a file of one's own"
    )


class Recipe(BaseModel):
    """What a method chooses. Everything that decides the result of a run is in here; the lake and
    the machine are not.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    title: str = Field(description="the method in one line")
    paper: str = Field(description="where it comes from")
    policy: str = Field(
        default="embedded:smollm2-135m",
        description="the initial policy: `embedded:...`, `toy`, a directory or a hub id",
    )
    seed: int = Field(default=0, ge=0)

    prompts: Prompts = Prompts()
    preferences: Preferences = Preferences()
    sampling: Sampling = Sampling()
    sampler: Sampler = Sampler()
    shards: Shards = Shards()
    sweep: Sweep = Sweep()
    reward: RewardModel = RewardModel()
    annotated_prompts: int = Field(
        default=0,
        ge=0,
        description="how many prompts' samples of the initial policy the judge labels, for a reward model that then judges in its place; 0: none",
    )
    judge: AnyJudge | None = Field(
        default=RewardModel(),
        description="who labels: `reward-model` (as `reward` says), `models@...`, a program, `llm`, "
        "`policy` (itself), `composite`, `human`, or `none`; or settings with their `kind`",
    )
    data: tuple[Data, ...] = Field(
        default=("samples",),
        min_length=1,
        description="what it learns from, by iteration, the last one from then on: `samples` (its own, judged), `preferences` (people's "
        "pairs), `gold` (people's chosen answer against its own sample), `lists` (people's "
        "answers and its own, judged together), "
        "`rounds` (a batch sampled and judged before every optimiser step), `seeds` (people's "
        "best answers and own judgements that agree with "
        "people, both imitated)",
    )
    trains_on: Literal["pairs", "answers"] = Field(
        default="pairs",
        description="`pairs`, or the accepted `answers`: one by one or as ranked lists, as the loss takes them",
    )
    acceptance: Acceptance = Acceptance()
    improve: Improve = Improve()
    rounds: Rounds = Rounds()
    pairing: Pairing = Pairing()
    judgements: EvaluationData = Field(
        default=EvaluationData(), description="of `seeds`: how the policy comes by them"
    )
    loss: Loss
    training: Training = Training()
    evaluation: Evaluation = Evaluation()
    gate: Gate = Field(default=Gate(), description="what a night's policy must show to be promoted")

    init: Literal["previous", "initial"] = Field(
        default="previous", description="the weights an iteration starts from"
    )
    reference: Literal["initial", "previous"] = Field(
        default="initial", description="the policy its loss is taken against"
    )
    pool: Literal["new", "last-two", "all"] = Field(
        default="new",
        description="what it trains on: this iteration's data, also the one's before, or all so far",
    )

    then: Then | None = Field(
        default=None,
        description="how later iterations differ: `iteration`, the first of them, and `changes`",
    )

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.isprintable():
            raise ValueError(
                "a name stands in titles and tables: leave out line breaks and characters that "
                "are not seen"
            )
        return value

    @field_validator("judge", mode="before")
    @classmethod
    def _nobody(cls, value: Any) -> Any:
        return None if value == "none" else value

    @field_validator("data", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @property
    def named_judge(self) -> JudgeSpec:
        """The judge that the recipe names, with the settings of its reward model."""
        assert self.judge is not None, "the caller has asked"
        return self.judge.with_reward(self.reward)

    @property
    def labels_by(self) -> JudgeSpec | None:
        """The judge that labels what is trained on: with annotated prompts the reward model that
        learned from the judge's labels. None where people have labelled.
        """
        return self.reward if self.annotated_prompts else self.judge and self.named_judge

    @property
    def soft_labels(self) -> bool:
        """Whether its loss learns how sure the judge is of a label."""
        return any(term.options.model_dump().get("soft_labels") for term in self.loss.terms)

    def data_of(self, iteration: int) -> Data:
        """What the iteration learns from, counted from 1."""
        return self.data[min(iteration, len(self.data)) - 1]

    def answers_prompts(self, iteration: int) -> bool:
        """Whether the policy answers the iteration's own prompts: else those that people have
        answered take their place.
        """
        return self.data_of(iteration) in ("samples", "rounds")

    def pooled(self, earlier: Sequence[Item], new: Item) -> list[Item]:
        """Of each iteration's data so far, what is trained on."""
        kept = {"new": 0, "last-two": 1, "all": len(earlier)}[self.pool]
        return [*earlier[len(earlier) - min(kept, len(earlier)) :], new]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.judge is None and not {"preferences", "gold", "seeds"}.issuperset(self.data):
            raise ValueError(
                "judge: `none` goes with data `preferences`, `gold` and `seeds` only: what is "
                "sampled has to be judged"
            )
        if "rounds" in self.data and self.sampler.engine != "transformers":
            raise ValueError(
                "data: `rounds` keep the policy in this process, so sampler.engine must be "
                "transformers"
            )
        if "rounds" in self.data and self.training.sets_aside:
            raise ValueError(
                "training.stop.log_ratio and training.pick: look at pairs that are set aside before "
                "a training, which data `rounds` does not have"
            )
        if self.loss.needs_values and (set(self.data) != {"rounds"} or self.trains_on == "pairs"):
            raise ValueError(
                f"the loss {self.loss.name} needs a value model, so set data to rounds and "
                "trains_on to answers"
            )
        if self.annotated_prompts and (self.judge is None or not self.judge.annotates):
            raise ValueError(
                "annotated_prompts: need a judge who labels them: an LLM, `policy` or a program"
            )
        if self.acceptance.rule in ("best", "threshold") and self.trains_on == "pairs":
            raise ValueError(
                f"acceptance.rule={self.acceptance.rule} leaves nothing to pair: set trains_on to "
                "answers"
            )
        if self.improve.thresholds and (
            self.trains_on != "answers" or self.acceptance.rule != "threshold"
        ):
            raise ValueError(
                "improve.thresholds: goes with trains_on=answers and acceptance.rule=threshold"
            )
        needed = self.loss.answers
        if self.trains_on == "answers" and needed > 1 and not self.loss.lists:
            raise ValueError(f"the loss {self.loss.name} learns from pairs: set trains_on to pairs")
        if needed > self.sampling.n and {"samples", "rounds"}.intersection(self.data):
            raise ValueError(
                f"the loss {self.loss.name} compares answers to one prompt: set sampling.n to "
                f"{needed} or more"
            )
        if (
            self.trains_on == "answers"
            and needed > 1
            and self.acceptance.rule in ("best", "threshold")
        ):
            raise ValueError(
                f"the loss {self.loss.name} ranks answers, and "
                f"acceptance.rule={self.acceptance.rule} leaves too few: set it to all"
            )
        compares = self.judge is not None and self.judge.surely_compares
        if compares and (sentence := self.without_scores()):
            raise ValueError(sentence)
        return self

    def without_scores(self) -> str | None:
        """What a judge that compares cannot do here, in a sentence."""
        scored = {
            f"acceptance.rule={self.acceptance.rule}": self.acceptance.rule != "all",
            f"pairing.rule={self.pairing.rule}": self.pairing.rule != "first-round",
            "sweep": bool(self.sweep.temperatures),
            "trains_on=answers": self.trains_on == "answers" and not self.annotated_prompts,
        }
        if wrong := [key for key, needs_scores in scored.items() if needs_scores]:
            return (
                "a judge that compares two answers gives no scores, without which there is no "
                f"{' and no '.join(wrong)}: set "
                "judge.mode=ten (or additive, rubric) of an LLM, or acceptance.rule=all, "
                "pairing.rule=first-round and no sweep"
            )
        return None
