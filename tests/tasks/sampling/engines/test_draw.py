"""The distribution that tokens are drawn from. Run: pytest
tests/tasks/sampling/engines/test_draw.py
"""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from dapflow.storage import UserError
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.draw import draw, uniforms

DRAWS = 20_000


def drawn(logits: Tensor, sampling: Sampling, draws: int = DRAWS) -> Tensor:
    """Tokens from one row of logits."""
    tokens, _ = draw(logits.expand(draws, -1), torch.from_numpy(uniforms(3, draws)), sampling)
    return tokens


def expected(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distribution by the book: temperature, then min-p, then top-k, then the smallest set with
    top_p of what is left. A full sort.
    """
    order = logits.argsort(descending=True)
    probabilities = (logits[order].double() / sampling.temperature).softmax(0)
    probabilities[probabilities < sampling.min_p * probabilities[0]] = 0
    if sampling.top_k:
        probabilities[sampling.top_k :] = 0
    probabilities /= probabilities.sum()
    probabilities[probabilities.cumsum(0) - probabilities >= sampling.top_p] = 0
    return torch.zeros_like(probabilities).scatter(0, order, probabilities / probabilities.sum())


OPTIONS = [
    Sampling(),
    Sampling(temperature=0.7),
    Sampling(temperature=1.5, top_k=7),
    Sampling(top_p=0.8),
    Sampling(top_p=0.01),
    Sampling(temperature=1.3, top_k=20, top_p=0.9),
    Sampling(top_k=10_000, top_p=0.95),
    Sampling(temperature=1.4, min_p=0.1),
    Sampling(top_p=0.7, min_p=0.05),
    Sampling(min_p=1.0),
]


@pytest.mark.parametrize("vocabulary", [37, 700])
@pytest.mark.parametrize("sampling", OPTIONS, ids=str)
def test_tokens_follow_the_distribution_and_never_leave_the_allowed_set(
    sampling: Sampling, vocabulary: int
) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(vocabulary)) * 2
    wanted = expected(logits, sampling).numpy()
    counts = np.bincount(drawn(logits, sampling).numpy(), minlength=vocabulary)
    assert counts[wanted == 0].sum() == 0
    common = wanted * DRAWS >= 5  # what chi-square asks for; the rest is one class
    observed, hoped = (
        np.append(counts[common], counts[~common].sum()),
        np.append(wanted[common], wanted[~common].sum()) * DRAWS,
    )
    if (hoped > 0).sum() > 1:
        assert chisquare(observed[hoped > 0], hoped[hoped > 0]).pvalue > 1e-3


def test_a_nucleus_wider_than_the_tokens_looked_at_first_is_still_exact() -> None:
    # 3,000 equal tokens: top_p = 0.9 needs 2,700 of them, far more than the 256 likeliest.
    # 4,000 draws see 2,700 (1 - exp(-4,000 / 2,700)) = 2,086 of those.
    tokens = drawn(torch.zeros(3000), Sampling(top_p=0.9), draws=4000)
    assert len(tokens.unique()) == pytest.approx(2086, abs=80)


def test_a_row_with_a_wide_nucleus_leaves_its_neighbours_alone() -> None:
    logits = torch.stack(
        [torch.randn(3000, generator=torch.Generator().manual_seed(1)) * 4, torch.zeros(3000)]
    )
    uniform = torch.tensor([0.4, 0.6], dtype=torch.float64)
    together, _ = draw(logits, uniform, Sampling(top_p=0.9))
    alone = [
        draw(logits[row : row + 1], uniform[row : row + 1], Sampling(top_p=0.9))[0].item()
        for row in (0, 1)
    ]
    assert together.tolist() == alone


@pytest.mark.parametrize("sampling", [*OPTIONS, Sampling(temperature=0)], ids=str)
def test_logprobs_are_raw_whatever_the_sampling(sampling: Sampling) -> None:
    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 3
    tokens, logprobs = draw(logits, torch.linspace(0.05, 0.95, 5, dtype=torch.float64), sampling)
    wanted = logits.double().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs.double(), wanted, rtol=0, atol=1e-5)


def test_the_ends_of_the_unit_interval_draw_possible_tokens() -> None:
    logits = torch.full((2, 600), -torch.inf)
    logits[:, [5, 590]] = 0.0
    tokens, _ = draw(logits, torch.tensor([0.0, 1 - 2.0**-53], dtype=torch.float64), Sampling())
    assert tokens.tolist() == [5, 590]


def test_temperature_zero_takes_the_likeliest() -> None:
    tokens, logprobs = draw(
        torch.tensor([[0.0, 1.0, -1.0]]),
        torch.tensor([0.99], dtype=torch.float64),
        Sampling(temperature=0),
    )
    assert tokens.tolist() == [1]
    # e / (1 + e + 1/e) = 2.71828 / 4.08616 = 0.66524, whose logarithm is -0.40761
    assert logprobs.item() == pytest.approx(-0.40761, abs=1e-5)


def test_a_longer_stream_begins_like_a_shorter_one_and_another_seed_differs() -> None:
    assert uniforms(5, 100)[:10].tolist() == uniforms(5, 10).tolist()
    assert uniforms(5, 10).tolist() != uniforms(6, 10).tolist()
    assert 0.49 < uniforms(2**63 - 1, 100_000).mean() < 0.51


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="diverged"):
        draw(torch.tensor([[0.0, torch.nan]]), torch.tensor([0.5], dtype=torch.float64), Sampling())
