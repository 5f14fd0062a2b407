"""Packed weights give what the layers give, are gone afterwards, and keep out of the way of
gradients.
"""

import pytest
import torch

from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.sampling.engines.packed import PackedLinears
from tests.tasks.training.toys import CONFIGS, toy_model


@pytest.mark.parametrize("dtype", sorted({torch.float32, fast_dtype(torch.device("cpu"))}, key=str))
def test_a_model_gives_the_same_with_packed_weights_and_is_itself_again_after(
    dtype: torch.dtype,
) -> None:
    model = torch.nn.Module.to(toy_model(CONFIGS["qwen2"], scale=1.0), dtype).eval()  # with biases
    close = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    ids = torch.arange(24).view(2, 12)
    packed = PackedLinears(model, 2)
    before = dict(model.named_modules())
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        with packed.used():
            torch.testing.assert_close(model(input_ids=ids).logits, plain, **close)
            assert all(
                "forward" in vars(module)
                for module in before.values()
                if type(module) is torch.nn.Linear
            )
    assert not any("forward" in vars(module) for module in model.modules())
    with packed.used():
        model(input_ids=ids).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_what_it_is_of_no_use_for_is_left_alone() -> None:
    model = torch.nn.Module.to(toy_model(), torch.float16)
    with PackedLinears(model, 2).used():
        assert not any("forward" in vars(module) for module in model.modules())
