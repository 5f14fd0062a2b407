"""Toy models and groups for the tests of training: milliseconds, seeded without touching the global
random state.
"""

import random
from dataclasses import replace

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

from dapflow.tasks.models.packed.batches import Experience, Group
from dapflow.tasks.models.packed.logps import packed_token_logps, reference_logps
from dapflow.tasks.training.logs import StepLog
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.settings import Stop, Training

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

SETTINGS = Training(
    learning_rate=1e-3,
    batch_size=4,
    epochs=2,
    tokens_per_microbatch=30,
    checkpoint_every_steps=2,
    dtype="float32",
)
LOOKING = SETTINGS.model_copy(update={"stop": Stop(log_ratio=1e-6, every=2, set_aside=4)})
"""Stops at its first look: what DPO teaches lowers other answers too."""
DPO = Loss.of("sigmoid_norm", beta=0.1)


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


def groups_with_reference(count: int = 10, answers: int = 2) -> list[Group]:
    """With log-probs and an experience of the toy model itself."""
    groups = toy_groups(count, answers=answers)
    return [
        replace(group, reference=logps, experience=experience(group))
        for group, logps in zip(groups, reference_logps(toy_model(), groups), strict=True)
    ]


@torch.no_grad()
def experience(group: Group) -> Experience:
    """As sampled by the toy model: the first answer's tokens were better than expected, the others'
    worse.
    """
    logps = packed_token_logps(toy_model().eval(), [group]).logps[0]
    advantages = torch.tensor(
        [1.0 - 2.0 * (place > 0) for place, answer in enumerate(group.answers) for _ in answer]
    )
    return Experience(
        logps=logps,
        values=torch.zeros_like(logps),
        advantages=advantages,
        returns=advantages,
        scale=float(len(logps)),
    )


def same_bits(left: PreTrainedModel, right: PreTrainedModel) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True)
    )


def without_speed(logs: list[StepLog]) -> list[StepLog]:
    return [
        replace(log, tokens_per_second=0.0, peak_memory_gib=0.0, models=None, model_bytes=None)
        for log in logs
    ]
