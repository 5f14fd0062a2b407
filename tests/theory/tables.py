"""Policies as tables of log-probabilities, fp64 [answers]: what the tests of theory share.

An expectation over answers is a sum over all of them. Test: pytest tests/theory
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dapflow.tasks.training.losses.logps import Logps


def normal(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers that fp32 holds exactly: experience keeps scores in it."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def tilted(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """log of pi_ref exp(r / beta) / Z, the policy that maximises E r - beta KL (DPO, arXiv
    2305.18290, eq. 4).
    """
    return (reference + rewards / beta).log_softmax(-1)


def divergence(policy: Tensor, other: Tensor) -> Tensor:
    """KL(policy || other), nats."""
    return (policy.exp() * (policy - other)).sum(-1)


def penalised(policy: Tensor, reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """J = E r - beta KL(policy || reference)."""
    return (policy.exp() * rewards).sum(-1) - beta * divergence(policy, reference)


def met(
    policy: Tensor,
    reference: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    preference: Tensor | None = None,
) -> Logps:
    """What a loss sees of pairs of answers, which are places in the table, [pairs].

    policy, reference: the tables.
    chosen, rejected: the answers.
    preference: the probability that the chosen is the better one.
    """
    answers = torch.stack((chosen, rejected), dim=1)
    return Logps(
        policy=policy[answers],
        reference=reference[answers],
        length=torch.ones_like(answers),
        preference=preference,
    )


def minimum(
    objective: Callable[[Tensor], Tensor], start: Tensor, tolerance: float = 1e-10
) -> Tensor:
    """Where a convex function is least, by L-BFGS from `start` until no slope is steeper than the
    tolerance.
    """
    point = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [point],
        max_iter=500,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def value_and_gradient() -> Tensor:
        search.zero_grad()
        value = objective(point)
        value.backward()
        return value

    search.step(value_and_gradient)
    return point.detach()
