"""Packed log-probabilities against plain forwards, on several architectures, and the fall-back
where packing breaks.
"""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import BloomConfig, GraniteConfig, LlamaConfig, MambaConfig, PreTrainedModel

from dapflow.tasks.models.packed import attention
from dapflow.tasks.models.packed.batches import Group, pack
from dapflow.tasks.models.packed.logps import (
    Scorer,
    packed_token_logps,
    padded_token_logps,
    pick_scorer,
    reference_logps,
    sequence_logps,
)
from tests.tasks.training.toys import COMMON, CONFIGS, VOCABULARY, toy_groups, toy_model

LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 12, "factor": 4.0,
    "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0],
}  # fmt: skip
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
GROUPS = toy_groups(3, answers=2) + toy_groups(2, seed=1, answers=4)


def plain_logps(model: PreTrainedModel, group: Group) -> Tensor:
    """Each answer alone, unpadded, through the model's own loss: HF's mean over tokens, times their
    number.
    """
    sums = []
    for answer in group.answers:
        ids = torch.tensor([group.prompt + answer])
        labels = torch.tensor([(-100,) * len(group.prompt) + answer])
        sums.append(-model(input_ids=ids, labels=labels).loss * len(answer))
    return torch.stack(sums)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return toy_model(CONFIGS[request.param]).eval()


def test_packed_and_padded_equal_a_plain_forward(model: PreTrainedModel) -> None:
    for scorer in (packed_token_logps, padded_token_logps):
        for ours, group in zip(sequence_logps(model, GROUPS, scorer), GROUPS, strict=True):
            torch.testing.assert_close(ours, plain_logps(model, group), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(
        packed_token_logps(model, GROUPS).entropy,
        padded_token_logps(model, GROUPS).entropy,
        atol=1e-4,
        rtol=1e-4,
    )


def test_packed_gradients_equal_those_of_a_plain_forward(model: PreTrainedModel) -> None:
    parameters = [p for p in model.parameters() if p.requires_grad]
    weights = [torch.linspace(-1, 1, len(group.answers)) for group in GROUPS]
    ours = sum(
        (w * s).sum()
        for w, s in zip(weights, sequence_logps(model, GROUPS, packed_token_logps), strict=True)
    )
    theirs = sum(
        (w * plain_logps(model, group)).sum() for w, group in zip(weights, GROUPS, strict=True)
    )
    for ours_p, theirs_p in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True
    ):
        torch.testing.assert_close(ours_p, theirs_p, atol=2e-3, rtol=1e-3)


def test_packing_is_picked_silently_where_it_is_exact(model: PreTrainedModel) -> None:
    assert pick_scorer(model) is packed_token_logps


def test_the_models_own_attention_is_back_afterwards(model: PreTrainedModel) -> None:
    before = model.config._attn_implementation
    packed_token_logps(model, GROUPS)
    assert model.config._attn_implementation == before
    model.generate(torch.tensor([[2, 3]]), max_new_tokens=2, do_sample=False)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        # the distance to every key comes from the attention mask: position_ids are ignored
        (
            BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4),
            "of the prompt's effect",
        ),
        # logits are divided by a constant outside of the head
        (
            GraniteConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                logits_scaling=3.0,
            ),
            "effect",
        ),
        # recurrent: what comes later in the row has seen all before it
        (
            MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2),
            "linear_attention layers",
        ),
        # of the groups some are longer than 12 tokens, and some are not: each has frequencies of
        # its own
        (LlamaConfig(**COMMON, rope_parameters=LONG), "the longest row beside them"),
        (
            LlamaConfig(**COMMON | {"max_position_embeddings": 12}, rope_parameters=DYNAMIC),
            "the longest row beside them",
        ),
    ],
    ids=["bloom", "granite", "mamba", "longrope", "dynamic"],
)
def test_an_architecture_that_cannot_be_packed_falls_back_loudly_and_is_exact(
    config: BloomConfig, why: str
) -> None:
    model = toy_model(config, scale=2.0).eval()
    with pytest.warns(UserWarning, match=f"cannot be trained without padding.*{why}"):
        scorer = pick_scorer(model)
    assert scorer is padded_token_logps
    for ours, group in zip(sequence_logps(model, GROUPS, scorer), GROUPS, strict=True):
        torch.testing.assert_close(ours, plain_logps(model, group), atol=1e-4, rtol=1e-5)


def test_a_model_that_ignores_positions_is_caught() -> None:
    def forget(
        module: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[Tensor, ...], dict[str, object]]:
        return args, kwargs | {"position_ids": None}

    model = toy_model().eval()
    model.model.register_forward_pre_hook(forget, with_kwargs=True)
    with pytest.warns(UserWarning, match="packed log-probabilities differ"):
        assert pick_scorer(model) is padded_token_logps


def test_a_bf16_model_passes_the_probe() -> None:
    assert pick_scorer(toy_model(scale=2.0).eval().to(torch.bfloat16)) is packed_token_logps


@pytest.mark.parametrize("scorer", [packed_token_logps, padded_token_logps])
def test_one_answer_does_not_see_another(scorer: Scorer) -> None:
    model, group = toy_model().eval(), GROUPS[3]
    changed = replace(group, answers=((5, 6, 7), *group.answers[1:]))
    before, after = (
        sequence_logps(model, [group], scorer)[0],
        sequence_logps(model, [changed], scorer)[0],
    )
    torch.testing.assert_close(before[1:], after[1:])
    assert abs(before[0] - after[0]) > 0.01


def test_a_uniform_model_gives_minus_n_log_v_whatever_the_prompt() -> None:
    """Only completion tokens count, the last one too: n * -log(V)."""
    model = toy_model(scale=0.0).eval()
    group = Group(prompt=(5, 6, 7, 8), answers=((9, 1), (3, 4, 2, 7, 1)), row_ids=("a",))
    expected = -torch.tensor([2.0, 5.0]) * torch.tensor(float(VOCABULARY)).log()
    torch.testing.assert_close(sequence_logps(model, [group], packed_token_logps)[0], expected)


def test_a_sequence_of_uniform_tokens_twice_as_long_has_twice_the_log_probability() -> None:
    """The sum, not the mean (P1)."""
    model = toy_model(scale=0.0).eval()
    group = Group(prompt=(5,), answers=((9, 9), (9, 9, 9, 9)), row_ids=("a",))
    once, twice = sequence_logps(model, [group], packed_token_logps)[0].tolist()
    assert twice == pytest.approx(2 * once)


def test_reference_logps_are_the_same_to_the_bit_whatever_is_scored_beside_them() -> None:
    model = toy_model()  # in training mode, with dropout
    found = list(reference_logps(model, GROUPS))
    for values, group in zip(found, GROUPS, strict=True):
        torch.testing.assert_close(
            torch.tensor(values), plain_logps(model, group), atol=1e-4, rtol=1e-5
        )
    assert list(reference_logps(model, reversed(GROUPS))) == found[::-1]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_lora_model_is_scored_with_its_adapter() -> None:
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # peft's own
        model = get_peft_model(
            toy_model(), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        ).eval()
    assert pick_scorer(model) is packed_token_logps
    adapted = sequence_logps(model, GROUPS[:1], packed_token_logps)[0]
    torch.testing.assert_close(adapted, plain_logps(model, GROUPS[0]), atol=1e-4, rtol=1e-5)
    with model.disable_adapter():
        assert not torch.allclose(sequence_logps(model, GROUPS[:1], packed_token_logps)[0], adapted)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_gpus_one_call_for_a_row_is_the_calls_for_its_parts(
    window: int | None, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = pack(
        [
            *GROUPS,
            Group(prompt=(1, 2, 3), answers=((4,), (5, 6), (7,)), row_ids=("of a single token",)),
        ]
    )
    length = packed.input_ids.shape[1]
    query, key, value = (
        torch.randn(1, heads, length, 8, generator=torch.Generator().manual_seed(heads))
        for heads in (4, 2, 2)
    )
    found = []
    for whole in (True, False):
        monkeypatch.setattr(attention, "_in_one_call", lambda _, whole=whole: whole)
        options = {
            "segments": packed.segments,
            "masks": {},
            "sliding_window": window,
            "softcap": softcap,
        }
        found.append(
            attention.shared_prefix_attention(
                torch.nn.Module(), query, key, value, None, **options
            )[0]
        )
    one, many = found
    torch.testing.assert_close(one, many)
