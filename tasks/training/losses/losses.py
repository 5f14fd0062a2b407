"""The losses, as pure functions of sequence log-probabilities, and `Loss`, the value by which a
recipe names one.

A new loss is one function here under `@loss`; nothing else changes. Test: pytest
tests/tasks/training/losses/test_losses.py

Three different losses are called "SLiC" or "hinge" elsewhere. Here: `hinge_norm` (RSO's hinge-norm,
what TRL calls "hinge" and OAIF and oat call "SLiC"), `hinge` (no reference: what RSO calls SLiC)
and `slic_hf` (hinge with an absolute margin and a regulariser).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from dapflow.tasks.models.packed.batches import Experience
from dapflow.tasks.training.losses.policy_gradient import clipped_policy_loss, leave_one_out
from dapflow.tasks.training.losses.registry import LOSSES, Registered, loss

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Half = Annotated[float, Field(ge=0, lt=0.5)]
Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Logps:
    """What a loss sees of some groups: log p(answer | prompt), summed over the answer's tokens;
    best answer first, then the rest.

    Every tensor is [groups, answers], fp32. `reference` and `cringe` are None where the loss has
    not asked for them; `rewards` are None where the order of the answers says all, `preference`
    where it is certain, `batch_length` where there is no batch.
    """

    policy: Tensor
    length: Tensor
    reference: Tensor | None = None
    rewards: Tensor | None = None
    cringe: Tensor | None = None
    preference: Tensor | None = (
        None  # [groups]: the judge's probability that the first answer is the better one
    )
    batch_length: Tensor | None = (
        None  # [groups]: tokens of a group's answers, mean over the whole batch
    )
    tokens: Tensor | None = (
        # [tokens], where there is but one group: log-probs of its answers' tokens, answer after
        # answer
        None
    )
    experience: Experience | None = None  # of the same tokens

    @cached_property
    def margin(self) -> Tensor:
        """log pi(y_w) - log pi(y_l), [groups]."""
        return self.policy[:, 0] - self.policy[:, 1]

    @cached_property
    def implied_rewards(self) -> Tensor:
        """d(y) = log pi(y) - log pi_ref(y), [groups, answers]: the reward of DPO without its beta."""
        assert self.reference is not None, (
            "this loss was registered with needs_reference=True, so the trainer brings one"
        )
        return self.policy - self.reference

    @cached_property
    def ranks(self) -> Tensor:
        """The rewards, or numbers that fall with the order of the answers, [groups, answers]."""
        if self.rewards is not None:
            return self.rewards
        return -self.policy.detach().new_tensor(range(self.policy.shape[1])).expand_as(self.policy)

    @cached_property
    def delta(self) -> Tensor:
        """Delta = d(y_w) - d(y_l), [groups]."""
        return self.implied_rewards[:, 0] - self.implied_rewards[:, 1]


@loss(
    "sigmoid_norm",
    needs_reference=True,
    source="DPO, arXiv 2305.18290, eq. 7; cDPO with label_smoothing; RSO's sigmoid-norm",
)
def sigmoid_norm(
    logps: Logps, *, beta: Positive = 0.1, label_smoothing: Half = 0.0, soft_labels: bool = False
) -> Tensor:
    """[groups]. -(1 - e) log sigma(beta Delta) - e log sigma(-beta Delta); with soft_labels, 1 - e
    is the judge's probability.
    """
    certain = (
        logps.preference if soft_labels and logps.preference is not None else 1 - label_smoothing
    )
    scaled = beta * logps.delta
    return -certain * logsigmoid(scaled) - (1 - certain) * logsigmoid(-scaled)


@loss(
    "hinge_norm",
    needs_reference=True,
    source="RSO, arXiv 2309.06657, eq. 10; OAIF, arXiv 2402.04792, calls it SLiC",
)
def hinge_norm(logps: Logps, *, gamma: Positive = 0.05) -> Tensor:
    """[groups]. max(0, 1 - gamma Delta)."""
    return relu(1 - gamma * logps.delta)


@loss(
    "hinge",
    needs_reference=False,
    source="RSO, arXiv 2309.06657, eq. 9 (SLiC without its regulariser; 1/gamma = its delta)",
)
def hinge(logps: Logps, *, gamma: Positive = 0.05) -> Tensor:
    """[groups]. max(0, 1 - gamma (log pi(y_w) - log pi(y_l))): no reference."""
    return relu(1 - gamma * logps.margin)


@loss(
    "slic_hf",
    needs_reference=False,
    source="SLiC-HF, arXiv 2305.10425, eq. 1, with the chosen answer as y_ref",
)
def slic_hf(logps: Logps, *, delta: Positive = 1.0, lambda_: NotNegative = 0.01) -> Tensor:
    """[groups]. max(0, delta - log pi(y_w) + log pi(y_l)) - lambda log pi(y_ref)."""
    return relu(delta - logps.margin) - lambda_ * logps.policy[:, 0]


@loss("ipo", needs_reference=True, source="IPO, arXiv 2310.12036, eq. 17")
def ipo(logps: Logps, *, tau: Positive = 0.1, reduction: Literal["sum", "mean"] = "sum") -> Tensor:
    """[groups]. (Delta - 1/(2 tau))^2. The paper sums over tokens; "mean" averages over each
    answer's own (TRL offline).
    """
    rewards = logps.implied_rewards / logps.length if reduction == "mean" else logps.implied_rewards
    return (rewards[:, 0] - rewards[:, 1] - 1 / (2 * tau)) ** 2


@loss(
    "spin",
    needs_reference=True,
    source="SPIN, arXiv 2401.01335, eq. 4.7: chosen is the data, reference the previous iterate",
)
def spin(logps: Logps, *, lambda_: Positive = 0.1) -> Tensor:
    """[groups]. log(1 + exp(-lambda Delta))."""
    return -logsigmoid(lambda_ * logps.delta)


@loss(
    "click",
    needs_reference=False,
    source="CLICK, arXiv 2306.03350, eq. 2 and 3, with the chosen answer as the language-model data",
)
def click(logps: Logps, *, margin: NotNegative = 20.0, weight: NotNegative = 0.5) -> Tensor:
    """[groups]. NLL per token of y+, plus weight max(0, margin + log pi(y-) - log pi(y+))."""
    return nll(logps) + weight * relu(margin - logps.margin)


@loss("rrhf", needs_reference=False, lists=True, source="RRHF, arXiv 2304.05302, eq. 2 to 4")
def rrhf(logps: Logps, *, rank_weight: NotNegative = 1.0) -> Tensor:
    """[groups]. sum over r_i < r_j of max(0, p_i - p_j), plus the NLL of the best answer, where p =
    log pi / length.
    """
    mean = logps.policy / logps.length
    below = logps.ranks[:, :, None] < logps.ranks[:, None, :]  # [groups, i, j]: r_i < r_j
    rank = (relu(mean[:, :, None] - mean[:, None, :]) * below).sum(dim=(1, 2))
    best = logps.ranks.argmax(dim=1, keepdim=True)
    return (
        rank_weight * rank - logps.policy.gather(1, best)[:, 0] / logps.length.gather(1, best)[:, 0]
    )


@loss(
    "nll",
    needs_reference=False,
    answers=1,
    source="supervised fine-tuning; RAFT, arXiv 2304.06767; ReST, arXiv 2308.08998, eq. 3",
)
def nll(logps: Logps) -> Tensor:
    """[groups]. -log pi(y) / length of the first answer."""
    return -logps.policy[:, 0] / logps.length[:, 0]


@loss(
    "cringe",
    needs_reference=False,
    needs_cringe=True,
    source="Cringe, arXiv 2211.05826, eq. 3, with the rejected answer as the negative",
)
def binary_cringe(
    logps: Logps, *, alpha: NotNegative = 1.0, k: Annotated[int, Field(ge=1)] = 1
) -> Tensor:
    """[groups]. [CE(y_w) + alpha CR(y_l)] per token of a group of the batch, so that its mean over
    groups is per token of the batch; the trainer draws CR's alternatives among the `k` likeliest.
    """
    assert logps.cringe is not None, "registered with needs_cringe=True, so the trainer brings it"
    tokens = logps.length[:, :2].sum(dim=1) if logps.batch_length is None else logps.batch_length
    return (-logps.policy[:, 0] + alpha * logps.cringe[:, 1]) / tokens


@loss(
    "pairwise_cringe",
    needs_reference=False,
    needs_cringe=True,
    source="Pairwise Cringe, arXiv 2312.16682, eq. 4 to 6",
)
def pairwise_cringe(
    logps: Logps,
    *,
    b: float = -10.0,
    tau: Positive = 10.0,
    alpha: NotNegative = 0.005,
    detach_gate: bool = False,
    k: Annotated[int, Field(ge=1)] = 5,
) -> Tensor:
    """[groups]. sigma((b - M) / tau) [CE(y_w) + alpha CR(y_l)]: the gate closes once M = log
    pi(y_w) - log pi(y_l) is well above b.

    CE and CR are sums over tokens; the trainer draws the alternatives of CR among the `k` likeliest
    (tasks/training/losses/cringe.py).
    """
    assert logps.cringe is not None, "registered with needs_cringe=True, so the trainer brings it"
    margin = logps.margin.detach() if detach_gate else logps.margin
    return ((b - margin) / tau).sigmoid() * (-logps.policy[:, 0] + alpha * logps.cringe[:, 1])


@loss(
    "label",
    needs_reference=False,
    source="the likelihood of the right one of two labels; RSO's ranker, arXiv 2309.06657, section 3.2",
)
def label(logps: Logps) -> Tensor:
    """[groups]. Bradley-Terry of log pi(y_w) and log pi(y_l), y_w the right label, y_l the wrong
    one, as sure as the judge was.
    """
    return bradley_terry(
        logps.policy[:, 0],
        logps.policy[:, 1],
        certain=1.0 if logps.preference is None else logps.preference,
    )


@loss(
    "reinforce",
    needs_reference=True,
    lists=True,
    source="REINFORCE with a leave-one-out baseline, RLOO, arXiv 2402.14740, eq. 8",
)
def reinforce(logps: Logps, *, beta: NotNegative = 0.05) -> Tensor:
    """[groups]. -mean over answers of A log pi(y); A: r - beta (log pi - log pi_ref) minus the mean
    of the other answers' same.
    """
    rewards = logps.ranks - beta * logps.implied_rewards.detach()
    return -(leave_one_out(rewards) * logps.policy).mean(dim=1)


@loss(
    "ppo",
    needs_reference=True,
    needs_values=True,
    answers=1,
    lists=True,
    source="PPO, arXiv 1707.06347, eq. 7; as in arXiv 2203.02155",
)
def ppo(
    logps: Logps,
    *,
    beta: NotNegative = 0.02,
    clip: Positive = 0.2,
    value_clip: Positive = 0.2,
    gamma: Share = 1.0,
    lambda_: Share = 0.95,
    whiten_scores: bool = True,
) -> Tensor:
    """[1]. -min(ratio A, clip(ratio) A), ratio = pi / pi_old, mean over tokens. The trainer brings
    A, from a value model that it trains beside the policy (tasks/training/rounds/learner.py), and
    for which all options but `clip` are.
    """
    assert logps.tokens is not None and logps.experience is not None, (
        "registered with needs_values=True, so the trainer brings them"
    )
    past = logps.experience
    return (
        clipped_policy_loss(logps.tokens, past.logps, past.advantages, clip).sum()[None]
        / past.scale
    )


def bradley_terry(
    chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0, certain: Tensor | float = 1.0
) -> Tensor:
    """[pairs]. -p log sigma(z) - (1 - p) log sigma(-z), z = r_c - r_r - m(rating), of scores
    [pairs]: the reward model's loss (Llama 2, arXiv 2307.09288, eq. 2), with `certain` p < 1 on
    soft labels (RLAIF, arXiv 2309.00267).
    """
    z = chosen - rejected - margin
    return -certain * logsigmoid(z) - (1 - certain) * logsigmoid(-z)


class Loss(BaseModel):
    """A loss and its options, as a value: `Loss.of("hinge_norm", gamma=0.05)`. Defaults are filled
    in, so equal losses compare equal.

    Raises a ValueError that lists the names (unknown loss), lists the options (unknown option) or
    says what a value must be.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, bool | int | float | str] = {}

    @classmethod
    def of(cls, name: str, **options: bool | int | float | str) -> Self:
        return cls(name=name, options=options)

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, value: Any) -> Any:
        """Also reads a bare name, and options beside the name: "hinge-norm", {"name": "hinge-norm",
        "gamma": 0.05}.
        """
        named = isinstance(value, str) or (
            isinstance(value, dict)
            and "name" in value
            and isinstance(value.get("options", {}), dict)
        )
        if not named:
            raise ValueError("write it as its name, or as {name: ipo, tau: 0.5}")
        given: dict[str, Any] = {"name": value} if isinstance(value, str) else dict(value)
        beside = {key: given.pop(key) for key in list(given) if key not in cls.model_fields}
        return given | {
            "name": str(given["name"]).replace("-", "_"),
            "options": given.get("options", {}) | beside,
        }

    @model_serializer
    def _fold(self) -> dict[str, bool | int | float | str]:
        return {"name": self.name, **self.options}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name not in LOSSES:
            raise ValueError(
                f"there is no loss {self.name!r}; choose one of {', '.join(sorted(LOSSES))}"
            )
        allowed = self.registered.options
        for option in self.options.keys() - allowed.keys():
            choice = f"its options are {', '.join(allowed)}" if allowed else "it has no options"
            raise ValueError(f"the loss {self.name} has no option {option!r}; {choice}")
        chosen = {
            key: _checked(self.name, key, self.options.get(key, p.default), p.annotation)
            for key, p in allowed.items()
        }
        self.options.clear()
        self.options.update(chosen)
        return self

    @property
    def registered(self) -> Registered:
        return LOSSES[self.name]

    def __call__(self, logps: Logps) -> Tensor:
        """The loss of each group, [groups]."""
        return self.registered.function(logps, **self.options)

    def __hash__(self) -> int:
        return hash((self.name, *self.options.items()))


def _checked(
    loss_name: str, option: str, value: object, annotation: Any
) -> bool | int | float | str:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(
            f"{option}={value!r} of the loss {loss_name}: {error.errors()[0]['msg'].lower()}"
        ) from None
