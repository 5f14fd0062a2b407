"""Master weights: plain AdamW for fp32, small steps that bf16 alone would lose, and state that goes
out and in.
"""

import gc
import math
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dapflow.tasks.training.optimizer import rounded
from dapflow.tasks.training.optimizer.optimizer import MasterAdamW, Optimizer, pick_optimizer
from dapflow.tasks.training.optimizer.rounded import RoundedAdamW, round_stochastically
from dapflow.tasks.training.settings import Training


def linear(dtype: torch.dtype) -> torch.nn.Linear:
    layer = torch.nn.Linear(3, 2, dtype=dtype)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(1.0)
    return layer


def test_an_fp32_model_is_stepped_as_by_torch() -> None:
    ours, theirs = linear(torch.float32), linear(torch.float32)
    optimizer = MasterAdamW(ours, Training(max_grad_norm=1e9, weight_decay=0.1))
    plain = torch.optim.AdamW(
        [
            {"params": [theirs.weight], "weight_decay": 0.1},
            {"params": [theirs.bias], "weight_decay": 0.0},
        ],
        lr=0.1,
    )
    for _ in range(3):
        for layer in (ours, theirs):
            layer(torch.tensor([[1.0, -2.0, 3.0]])).square().sum().backward()
        optimizer.step(0.1)
        plain.step()
        plain.zero_grad()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_steps_too_small_for_bf16_add_up_in_its_master() -> None:
    layer = linear(torch.bfloat16)
    optimizer = MasterAdamW(layer, Training())
    for _ in range(20):
        layer(torch.ones(1, 3, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(1e-3)  # bf16 near 1 has steps of 1/256: a single 0.001 rounds away
    assert layer.weight[0, 0].item() == pytest.approx(0.98, abs=1 / 256)


def test_gradients_of_microbatches_add_up_in_fp32() -> None:
    layer = linear(torch.bfloat16)
    optimizer = MasterAdamW(layer, Training(max_grad_norm=1e9))
    for scale in (256.0, 1.0):  # in bf16 256 + 1 = 256
        (scale * layer.bias.float()).sum().backward()
    assert layer.bias.grad is None
    assert optimizer.masters["bias"].grad.tolist() == [257.0, 257.0]


def test_the_norm_is_the_one_before_clipping_and_a_broken_gradient_changes_nothing() -> None:
    layer = linear(torch.float32)
    optimizer = MasterAdamW(layer, Training(max_grad_norm=1.0))
    (3 * layer.bias[0] + 4 * layer.bias[1]).backward()
    assert optimizer.step(0.0) == pytest.approx(5.0)
    before = layer.weight.clone()
    (layer.weight * torch.nan).sum().backward()
    assert math.isnan(optimizer.step(1.0))
    torch.testing.assert_close(layer.weight, before)


def test_rounded_weights_are_right_on_average() -> None:
    values = torch.full((100_000,), 1.0 + 1e-3)  # bf16 has 1 and 1 + 1/128
    rounded = round_stochastically(values, torch.Generator().manual_seed(0)).float()
    assert set(rounded.tolist()) == {1.0, 1.0 + 1 / 128}
    assert rounded.mean().item() == pytest.approx(1.001, abs=5 * 3e-3 / 100_000**0.5)
    exact = torch.tensor([0.0, 1.0, -3.5, 1e-30]).to(torch.bfloat16)
    assert torch.equal(round_stochastically(exact.float(), torch.Generator()), exact)


def test_small_steps_survive_without_masters() -> None:
    layer = torch.nn.Linear(64, 64, dtype=torch.bfloat16)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    optimizer = RoundedAdamW(layer, Training(weights="stochastic"), seed=0)
    for _ in range(20):
        layer(torch.ones(1, 64, dtype=torch.bfloat16)).sum().backward()
        optimizer.step(1e-3)
    assert layer.weight.float().mean().item() == pytest.approx(0.98, abs=2e-3)


def test_without_rounding_both_step_alike() -> None:
    ours, theirs = linear(torch.float32), linear(torch.float32)
    settings = Training(weight_decay=0.1, max_grad_norm=2.0)
    rounded, master = RoundedAdamW(ours, settings, seed=0), MasterAdamW(theirs, settings)
    for x in (1.0, -2.0, 0.5):
        for layer, optimizer in ((ours, rounded), (theirs, master)):
            layer(torch.tensor([[x, -2.0, 3.0]])).square().sum().backward()
            optimizer.step(0.1)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


SETTINGS = {
    "master": Training(weights="master"),
    "stochastic": Training(weights="stochastic"),
    "8bit": Training(moments="8bit"),
}


def trained(layer: torch.nn.Linear, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        random = torch.Generator().manual_seed(step)
        x = torch.randn(2, layer.in_features, generator=random).to(layer.weight.dtype)
        layer(x).square().sum().backward()
        optimizer.step(0.01)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_saved_and_loaded_goes_on_to_the_same_bits(
    tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    first, second = wide(dtype), wide(dtype)
    whole = pick_optimizer(first, SETTINGS[name], seed=0)
    trained(first, whole, range(2))
    save_file(whole.state(), tmp_path / "state.safetensors")
    trained(first, whole, range(2, 4))
    resumed = pick_optimizer(second, SETTINGS[name], seed=0)
    resumed.load(load_file(tmp_path / "state.safetensors"))
    trained(second, resumed, range(2, 4))
    states = [whole.state(), resumed.state()]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(first.weight, second.weight)


def test_bf16_weights_are_rounded_by_chance_unless_masters_are_asked_for() -> None:
    half, whole = wide(torch.bfloat16), wide(torch.float32)
    assert isinstance(pick_optimizer(half, Training(), seed=0), RoundedAdamW)
    for layer, settings in (
        (half, Training(weights="master")),
        (half, Training(moments="8bit")),
        (whole, Training()),
    ):
        assert isinstance(pick_optimizer(layer, settings, seed=0), MasterAdamW)


def test_moments_of_8_bits_take_a_quarter_and_step_nearly_as_well() -> None:
    exact, small = wide(torch.float32), wide(torch.float32)
    optimizers = [
        pick_optimizer(exact, SETTINGS["master"], seed=0),
        pick_optimizer(small, SETTINGS["8bit"], seed=0),
    ]
    for layer, optimizer in zip((exact, small), optimizers, strict=True):
        trained(layer, optimizer, range(10))
    moved = (exact.weight - wide(torch.float32).weight).abs().mean()
    assert (small.weight - exact.weight).abs().mean() < 0.1 * moved
    sizes = [
        sum(t.nbytes for name, t in o.state().items() if not name.startswith("master"))
        for o in optimizers
    ]
    assert sizes[1] < 0.35 * sizes[0]


@pytest.mark.parametrize("name", SETTINGS)
def test_what_was_trained_is_freed_and_its_gradients_are_its_own_again(name: str) -> None:
    layer = wide(torch.bfloat16)
    optimizer = pick_optimizer(layer, SETTINGS[name], seed=0)
    trained(layer, optimizer, range(2))
    seen = weakref.ref(optimizer)
    del optimizer
    gc.collect()
    assert seen() is None
    layer(torch.ones(1, layer.in_features, dtype=torch.bfloat16)).sum().backward()
    assert layer.weight.grad is not None


def test_parameters_that_are_stepped_together_are_as_those_that_are_stepped_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for together in (1, 1 << 24):
        monkeypatch.setattr(rounded, "_AT_ONCE", together)
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(4, 4), torch.nn.Linear(4, 2), torch.nn.Linear(2, 2)
        )
        model[1].weight.requires_grad_(False)
        optimizer = RoundedAdamW(model, Training(weight_decay=0.1), seed=0)
        for _ in range(2):
            model[:2](
                torch.ones(1, 4)
            ).square().sum().backward()  # the last has no gradients, and stays as it is
            optimizer.step(0.1)
        found.append((model.state_dict(), optimizer.state()))
    torch.testing.assert_close(found[0], found[1])


def wide(dtype: torch.dtype) -> torch.nn.Linear:
    """Large enough for moments of 8 bits, which small tensors do not get."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Linear(128, 64, dtype=dtype)
