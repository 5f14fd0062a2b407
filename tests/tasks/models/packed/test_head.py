"""The chunked head against a plain log-softmax: values, gradients, and what it holds in memory."""

import pytest
import torch
from torch import Tensor

from dapflow.tasks.models.packed.head import completion_logps

TOKENS, WIDTH, VOCABULARY = 7, 5, 11


def tensors(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((TOKENS, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    hidden, weight, bias = (
        torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes
    )
    return hidden, weight, bias, torch.randint(VOCABULARY, (TOKENS,), generator=random)


def plain(
    hidden: Tensor, target: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None
) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits.log_softmax(-1).gather(1, target[:, None])[:, 0]


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_those_of_log_softmax(
    chunk: int, softcap: float | None, biased: bool
) -> None:
    hidden, weight, bias, target = tensors()
    inputs = (hidden, weight, bias) if biased else (hidden, weight)
    upstream = torch.linspace(-1, 2, TOKENS)
    ours = completion_logps(hidden, target, weight, bias if biased else None, softcap, chunk).logps
    theirs = plain(hidden, target, weight, bias if biased else None, softcap)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(theirs, inputs, upstream)
    )


def test_a_frozen_head_still_passes_the_gradient_on() -> None:
    hidden, weight, _, target = tensors()
    weight.requires_grad_(False)
    ours, theirs = (
        completion_logps(hidden, target, weight, chunk=2).logps.sum(),
        plain(hidden, target, weight, None, None).sum(),
    )
    torch.testing.assert_close(
        torch.autograd.grad(ours, hidden), torch.autograd.grad(theirs, hidden)
    )


def test_uniform_logits_give_minus_log_of_the_vocabulary() -> None:
    target = torch.arange(TOKENS)
    logps = completion_logps(
        torch.zeros(TOKENS, WIDTH), target, torch.zeros(VOCABULARY, WIDTH)
    ).logps
    torch.testing.assert_close(
        logps, torch.full((TOKENS,), -torch.tensor(float(VOCABULARY)).log().item())
    )


def test_the_softmax_of_a_bf16_model_is_in_fp32() -> None:
    """1,000 tokens: the sum is that of float64 to 1e-2, where a bf16 log-softmax is nats away."""
    random = torch.Generator().manual_seed(0)
    hidden = torch.randn(1000, 16, generator=random).bfloat16()
    weight, target = (
        torch.randn(500, 16, generator=random).bfloat16(),
        torch.randint(500, (1000,), generator=random),
    )
    logits = torch.nn.functional.linear(hidden, weight)
    exact = logits.double().log_softmax(-1).gather(1, target[:, None]).sum().item()
    assert completion_logps(hidden, target, weight).logps.sum().item() == pytest.approx(
        exact, abs=1e-2
    )
    assert (
        abs(logits.log_softmax(-1).gather(1, target[:, None]).double().sum().item() - exact) > 0.1
    )


def test_gradients_of_a_bf16_head_add_up_in_fp32() -> None:
    hidden, weight, bias, target = tensors(torch.bfloat16)
    ours = torch.autograd.grad(
        completion_logps(hidden, target, weight, bias, chunk=2).logps.sum(), (hidden, weight, bias)
    )
    exact = torch.autograd.grad(
        plain(hidden.double(), target, weight.double(), bias.double(), None).sum(),
        (hidden, weight, bias),
    )
    torch.testing.assert_close(ours, exact, atol=0.02, rtol=0.02)


def test_no_tensor_of_tokens_by_vocabulary_is_ever_made() -> None:
    hidden, weight, bias, target = tensors()
    sizes = list[int]()

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, Tensor) else 0)
            return result

    with Watch():
        completion_logps(hidden, target, weight, bias, chunk=2).logps.sum().backward()
    assert (
        max(sizes) == VOCABULARY * WIDTH < TOKENS * VOCABULARY
    )  # the largest is the gradient of the weight; a chunk has 2 * 11


def test_the_entropy_is_that_of_each_place_and_has_no_gradient() -> None:
    hidden, weight, bias, target = tensors()
    found = completion_logps(hidden, target, weight, bias, chunk=3)
    exact = torch.distributions.Categorical(
        logits=torch.nn.functional.linear(hidden, weight, bias)
    ).entropy()
    torch.testing.assert_close(found.entropy, exact)
    assert found.logps.requires_grad and not found.entropy.requires_grad
    flat = completion_logps(
        torch.zeros(TOKENS, WIDTH), target, torch.zeros(VOCABULARY, WIDTH)
    ).entropy
    torch.testing.assert_close(flat, torch.full((TOKENS,), float(VOCABULARY)).log())
