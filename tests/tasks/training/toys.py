"""Toy models and groups for the tests of training: milliseconds, seeded without touching the global
random state.
"""

import random

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from dapflow.tasks.models.packed.batches import Group

VOCABULARY = 97
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
# A window of 4 is shorter than the prompts below, so the sliding layers do slide.
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(
        **COMMON, num_key_value_heads=2, tie_word_embeddings=True, attention_dropout=0.5
    ),
    "qwen2": Qwen2Config(**COMMON, num_key_value_heads=2),
    "gpt-neox": GPTNeoXConfig(**COMMON, hidden_dropout=0.5),
    "gemma2": Gemma2Config(
        **COMMON, num_key_value_heads=2, head_dim=8, sliding_window=4, final_logit_softcapping=0.5
    ),
    "gemma3": Gemma3TextConfig(**COMMON, num_key_value_heads=2, head_dim=8, sliding_window=4),
}


def toy_model(
    config: PreTrainedConfig = CONFIGS["llama"], seed: int = 0, scale: float = 5.0
) -> PreTrainedModel:
    """A model in training mode (dropout on, as a fresh one is), its matrices scaled up so that its
    predictions are not flat.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(scale)
    return model.train()


def toy_groups(
    count: int,
    seed: int = 0,
    answers: int = 2,
    prompt: tuple[int, int] = (3, 9),
    answer: tuple[int, int] = (1, 8),
) -> list[Group]:
    """Groups of random tokens; lengths are drawn from the given ranges, ends included."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw.randrange(2, VOCABULARY) for _ in range(draw.randint(low, high)))

    return [
        Group(
            prompt=ids(*prompt),
            answers=tuple(ids(*answer) for _ in range(answers)),
            row_ids=(f"pair-{i}",),
        )
        for i in range(count)
    ]
