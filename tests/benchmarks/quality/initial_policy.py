"""The policy that the methods of tests.benchmarks.quality.fidelity start from: the toy after
supervised fine-tuning, as in the papers.

speaking_toy(directory) -> the directory, with a model that says pieces of 6 to 15 tokens in the
manner of the shipped answers, and ends them The toy as it is says any of its 1,024 tokens with
nearly the same probability, and seldom ends: its 64 random numbers a token tell nothing about
words.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import load_own, resolve, save
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.logps import packed_token_logps
from dapflow.tasks.seeds import generator
from dapflow.tasks.training.optimizer.optimizer import MasterAdamW
from dapflow.tasks.training.settings import Training

ANSWERS = Path(__file__).parents[3] / "tasks" / "prompts" / "data" / "preferences.jsonl"
STEPS, BATCH, RATE = 400, 32, 0.003
SHORTEST, LONGEST = 6, 15  # tokens of a piece


def speaking_toy(directory: Path) -> Path:
    """Fine-tune the toy on pieces of sentences, 40 s on one core; the same every time."""
    loaded, rng = load_own(resolve("toy").path, dtype=torch.float32), generator("initial policy")
    sentences = list(_sentences(loaded.tokenizer))
    optimizer = MasterAdamW(loaded.model, Training(learning_rate=RATE))
    for _ in range(STEPS):
        groups = [
            _piece(
                *rng.choice(sentences),
                rng.randint(SHORTEST, LONGEST),
                rng.random(),
                loaded.tokenizer,
            )
            for _ in range(BATCH)
        ]
        (-packed_token_logps(loaded.model, groups).logps.mean()).backward()
        optimizer.step(RATE)
    save(loaded, directory)
    return directory


def _sentences(tokenizer: Any) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Prompt and sentence as token ids, of every sentence of the shipped answers."""
    for row in map(json.loads, ANSWERS.read_text("utf-8").splitlines()):
        prompt = tuple(render(tokenizer, row["prompt"]))
        for sentence in re.split(r"(?<=[.!?])\s+", f"{row['chosen']} {row['rejected']}"):
            yield prompt, tuple(tokenizer(sentence, add_special_tokens=False)["input_ids"])


def _piece(
    prompt: tuple[int, ...], sentence: tuple[int, ...], length: int, place: float, tokenizer: Any
) -> Group:
    start = int(place * (max(len(sentence) - length, 0) + 1))
    return Group(
        prompt=prompt,
        answers=((*sentence[start : start + length], tokenizer.eos_token_id),),
        row_ids=("piece",),
    )
