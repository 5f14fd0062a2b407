"""The dtype that a device computes in fastest. Test: pytest tests/tasks/training/test_settings.py"""

import torch


def fast_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it natively, else float32: a CPU without such
    instructions is 8 times slower in bfloat16.
    """
    if device.type != "cpu":
        return torch.bfloat16
    features = torch.cpu.get_capabilities()
    native = any(
        features.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")
    )
    return torch.bfloat16 if native else torch.float32
