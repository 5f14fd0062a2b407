"""The KL estimate against the exact divergence of two small models."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dapflow.tasks.evaluation.divergence import token_divergences

WORDS = 16


@pytest.fixture(scope="module")
def models() -> tuple[LlamaForCausalLM, LlamaForCausalLM]:
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=WORDS,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            initializer_range=0.5,
        )
        made.append(LlamaForCausalLM(config).eval())
    return made[0], made[1]


def logps(model: LlamaForCausalLM, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)


def test_a_policy_is_no_distance_from_itself(
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
) -> None:
    assert token_divergences(models[0], models[0], [1, 2, 3], [4, 5, 6]).tolist() == [0.0, 0.0, 0.0]


def test_the_mean_over_sampled_answers_is_the_exact_divergence(
    models: tuple[LlamaForCausalLM, LlamaForCausalLM],
) -> None:
    new, old = models
    prompt = [1, 2, 3]
    p, q = logps(new, prompt), logps(old, prompt)
    first = (p.exp() * (p - q)).sum()
    # The chain rule over every first token: KL of answers of two tokens = KL of the first + E[KL of
    # the second | first].
    exact = first
    for token in range(WORDS):
        a, b = logps(new, [*prompt, token]), logps(old, [*prompt, token])
        exact = exact + p[token].exp() * (a.exp() * (a - b)).sum()
    drawn = torch.multinomial(
        p.exp(), 400, replacement=True, generator=torch.Generator().manual_seed(0)
    ).tolist()
    of_first = {token: token_divergences(new, old, prompt, [token, 0]) for token in set(drawn)}
    sampled = torch.stack([of_first[token] for token in drawn])
    assert sampled[:, 0].tolist() == pytest.approx([first.item()] * 400, abs=1e-5)
    sums = sampled.sum(dim=1)
    assert abs(sums.mean().item() - exact.item()) < 4 * sums.std().item() / 20
    # The plain estimate is as unbiased, with more variance.
    plain = torch.tensor([(p[token] - q[token]).item() for token in drawn])
    assert plain.std() > sampled[:, 0].std()
