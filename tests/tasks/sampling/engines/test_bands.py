"""Rows that attend in bands read what they own, and get what plain attention gives. Run: pytest
tests/tasks/sampling/engines/test_bands.py
"""

import itertools
import random

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BloomConfig, LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from dapflow.tasks.sampling.engines.bands import CALL_SLOTS, banded, banded_attention, bands_of

END = 700


def cost(bands: list[tuple[slice, int]]) -> int:
    return sum(CALL_SLOTS + (rows.stop - rows.start) * (END - first) for rows, first in bands)


@pytest.mark.parametrize("seed", range(20))
def test_bands_cover_every_row_once_at_the_least_cost_there_is(seed: int) -> None:
    rng = random.Random(seed)
    starts = [rng.choice([0, 5, 300, 600, 690]) for _ in range(rng.randrange(1, 9))]
    bands = bands_of(starts, END)
    assert [row for rows, _ in bands for row in range(rows.start, rows.stop)] == list(
        range(len(starts))
    )
    assert all(first == min(starts[rows]) for rows, first in bands)
    least = END * END
    for cuts in itertools.product([False, True], repeat=len(starts) - 1):
        edges = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), len(starts)]
        least = min(
            least, cost([(slice(a, b), min(starts[a:b])) for a, b in itertools.pairwise(edges)])
        )
    assert cost(bands) == least


def test_one_long_row_does_not_make_the_others_read_its_slots() -> None:
    assert bands_of([0] * 4 + [660] * 60, END) == [(slice(0, 4), 0), (slice(4, 64), 660)]
    assert bands_of([650] * 64, END) == [(slice(0, 64), 650)]


@pytest.mark.parametrize("heads", [2, 4])
def test_in_bands_or_not_the_outputs_are_the_same(heads: int) -> None:
    module = nn.Module()
    module.num_key_value_groups = heads // 2  # type: ignore[assignment]
    starts = torch.tensor([0, 0, 30, 45, 45])
    random_numbers = torch.Generator().manual_seed(0)
    query = torch.randn(5, heads, 1, 8, generator=random_numbers)
    key, value = torch.randn(2, 5, 2, 50, 8, generator=random_numbers)
    mask = (torch.arange(50) >= starts[:, None])[:, None, None]
    whole, _ = sdpa_attention_forward(module, query, key, value, mask)
    parts, _ = banded_attention(
        module,
        query,
        key,
        value,
        mask,
        bands=[(slice(0, 2), 0), (slice(2, 3), 30), (slice(3, 5), 45)],
    )
    torch.testing.assert_close(parts, whole)


def test_an_architecture_with_its_own_attention_is_left_as_it_is() -> None:
    bloom = AutoModelForCausalLM.from_config(
        BloomConfig(vocab_size=20, hidden_size=8, n_head=2, n_layer=1)
    )
    with banded(bloom) as taken:
        assert not taken
    llama = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=8,
            num_attention_heads=2,
            num_hidden_layers=1,
        )
    )
    with banded(llama) as taken:
        assert taken
    assert llama.config._attn_implementation == "sdpa"
