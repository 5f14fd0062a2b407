"""`Logps`: what a loss sees of some groups of answers.

Test: pytest tests/tasks/training/losses/test_losses.py
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from dapflow.tasks.models.packed.batches import Experience


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
    # [groups]: the judge's probability that the first answer is the better one
    preference: Tensor | None = None
    # [groups]: tokens of a group's answers, mean over the whole batch
    batch_length: Tensor | None = None
    # [tokens], where there is but one group: log-probs of its answers' tokens, answer after answer
    tokens: Tensor | None = None
    experience: Experience | None = None  # of the same tokens

    @cached_property
    def margin(self) -> Tensor:
        """log pi(y_w) - log pi(y_l), [groups]."""
        return self.policy[:, 0] - self.policy[:, 1]

    @cached_property
    def implied_rewards(self) -> Tensor:
        """d(y) = log pi(y) - log pi_ref(y), [groups, answers]: DPO's reward without its beta."""
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
