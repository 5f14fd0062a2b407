"""What the methods of a seed have in common in tests.benchmarks.quality.fidelity: pairs that the
noisy annotator labelled, and the proxy that learned from them.

preferences(lake, initial, file, seed) -> how often the annotator is right          proxy(initial, pairs, seed) -> a reward model
"""

import json
from pathlib import Path
from statistics import fmean

import numpy as np
from prefect import flow
from scipy.stats import spearmanr

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.tasks.judging.judges.base import Question, scores_of
from dapflow.tasks.judging.judges.pointwise import RewardModelJudge
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.prompts.load import PROMPTS_FILE, Split, load_prompts
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.training.reward.train import train_reward_model
from tests.benchmarks.quality.world import gold, noisy

TOKENS = 16
ANSWERS = 16  # to each prompt, of which the annotator compares the half with the other half
PROXY = RewardModel(parameters="full", layers=1, learning_rate=0.001)


@flow
def first_answers(initial: str, split: Split, n: int, seed: int) -> tuple[DatasetRef, DatasetRef]:
    """Prompts, and n answers of the initial policy to each."""
    source = find_source("shipped", PROMPTS_FILE)
    policy, prompts = (
        register_model(initial, resolve(initial).digest),
        load_prompts(source.name, source.digest, split, 48),
    )
    return prompts, sample(policy, prompts, Sampling(n=n, max_tokens=TOKENS), seed, Sampler())


def preferences(lake: Lake, initial: str, file: Path, seed: int) -> float:
    """Write pairs of answers of the initial policy as the annotator prefers them; how often it is
    right where there is a right and a wrong.
    """
    prompts, answers = first_answers(initial, "train", ANSWERS, seed)
    texts = {row["id"]: row["prompt"] for row in lake.rows_of(prompts)}
    rows = [(texts[row["prompt_id"]], row["text"]) for row in lake.rows_of(answers)]
    right, lines = list[bool](), list[str]()
    for (prompt, one), (_, other) in zip(rows[::2], rows[1::2], strict=True):
        if one.strip() and other.strip() and one != other:
            better, worse = (one, other) if noisy(prompt, one, other) else (other, one)
            lines.append(json.dumps({"prompt": prompt, "chosen": better, "rejected": worse}))
            if (margin := gold(prompt, better) - gold(prompt, worse)) != 0:
                right.append(margin > 0)
    file.write_text("\n".join(lines))
    return fmean(right)


@flow
def proxy(initial: str, pairs: Path, seed: int) -> ModelRef:
    """The reward model that the recipes train on these pairs."""
    source, policy = (
        find_source(str(pairs), PREFERENCES_FILE),
        register_model(initial, resolve(initial).digest),
    )
    learned, test = (
        load_preferences(source.name, source.digest, "reward"),
        load_preferences(source.name, source.digest, "test"),
    )
    return train_reward_model(policy, learned, test, PROXY, seed)


def agreement(lake: Lake, model: ModelRef, initial: str, seed: int) -> tuple[float, float]:
    """Of two answers of the initial policy to a held-out prompt how often the proxy finds the
    better one, and its rank correlation with gold.
    """
    prompts, answers = first_answers(initial, "held_out", ANSWERS, seed)
    texts = {row["id"]: row["prompt"] for row in lake.rows_of(prompts)}
    rewards = [gold(texts[row["prompt_id"]], row["text"]) for row in lake.rows_of(answers)]
    found = np.array(
        list(zip(proxy_scores(lake, model, answers), rewards, strict=True)), dtype=float
    )
    differences = found[::2] - found[1::2]
    able = ~np.isnan(differences[:, 0]) & (differences[:, 1] != 0)
    correlation = spearmanr(*found[~np.isnan(found[:, 0])].T).statistic
    return float(((differences[:, 0] > 0) == (differences[:, 1] > 0))[able].mean()), float(
        correlation
    )


def proxy_scores(lake: Lake, model: ModelRef, answers: DatasetRef) -> list[float | None]:
    """Its score of each answer, None of one that has nothing to be scored."""
    query = "SELECT c.id, c.text, p.prompt FROM completions c JOIN prompts p ON p.id = c.prompt_id WHERE c.version = ? ORDER BY c.id"
    rows = lake.rows(query, [answers.version])
    asked = [
        Question(completion_id=row["id"], prompt=row["prompt"], completion=row["text"], answer=None)
        for row in rows
    ]
    return [one.score for one in scores_of(RewardModelJudge(lake, model), asked)]
