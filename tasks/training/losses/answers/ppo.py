"""PPO: the clipped ratio times the advantage, token by token.

Test: pytest tests/tasks/training/losses/test_policy_gradient.py
"""

from torch import Tensor

from dapflow.tasks.training.losses.logps import Logps
from dapflow.tasks.training.losses.options import Positive
from dapflow.tasks.training.losses.policy_gradient import Clipped, clipped_policy_loss
from dapflow.tasks.training.losses.registry import loss


@loss(
    needs_reference=True,
    critic=Clipped(),
    answers=1,
    lists=True,
    source="PPO, arXiv 1707.06347, eq. 7; as in arXiv 2203.02155",
)
def ppo(logps: Logps, *, clip: Positive = 0.2) -> Tensor:
    """[1]. -min(ratio A, clip(ratio) A), ratio = pi / pi_old, mean over tokens. The trainer brings
    A, from a value model that it trains beside the policy.
    """
    assert logps.tokens is not None and logps.experience is not None, (
        "registered with a critic, so the trainer brings them"
    )
    past = logps.experience
    return (
        clipped_policy_loss(logps.tokens, past.logps, past.advantages, clip).sum()[None]
        / past.scale
    )
