"""Learning rates by hand, and readable refusals."""

import pytest
import torch

from dapflow.tasks.models.dtypes import fast_dtype
from dapflow.tasks.training.settings import Training


def test_warm_up_then_the_schedule_worked_out_by_hand() -> None:
    def rates(**settings: object) -> list[float]:
        training = Training(learning_rate=8.0, warmup_steps=2, **settings)  # pyright: ignore[reportArgumentType]
        return [round(training.learning_rate_at(step, 6), 6) for step in range(6)]

    assert rates(schedule="constant") == [4, 8, 8, 8, 8, 8]
    assert rates(schedule="linear") == [4, 8, 8, 6, 4, 2]
    assert rates(schedule="linear", final_learning_rate_share=0.5) == [4, 8, 8, 7, 6, 5]
    # (1 + cos(pi/4)) / 2 = 0.853553, then 1/2, then 0.146447
    assert rates(schedule="cosine") == [4, 8, 8, 6.828427, 4, 1.171573]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("learning_rate", 0, "greater than 0"),
        ("schedule", "step", "'constant', 'linear' or 'cosine'"),
        ("lr", 1, "Extra inputs"),
    ],
)
def test_a_wrong_setting_is_told_what_is_right(field: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Training.model_validate({field: value})


def test_the_dtype_is_what_was_asked_for_or_what_the_device_is_fast_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = torch.device("cpu")
    assert Training(dtype="bfloat16").torch_dtype(cpu) is torch.bfloat16
    for features, expected in [
        ({"avx2": True, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
    ]:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        assert Training().torch_dtype(cpu) is expected
    assert fast_dtype(torch.device("cuda")) is torch.bfloat16
