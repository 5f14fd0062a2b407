"""What a round of an online method spends beside sampling, judging and learning. python -m
tests.benchmarks.speed.rounds [--model ...] [--rounds 6]

OAIF by its own step, judged by a program: with a judge that takes time the share that is not work
is smaller. A minute and a half on two cores.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from dapflow.flows.server.environment import prepare

prepare(None)

from prefect import flow  # noqa: E402

from dapflow.flows.recipes.methods import OAIF  # noqa: E402
from dapflow.storage import Lake, ModelRef  # noqa: E402
from dapflow.tasks.judging.judges.program import Program  # noqa: E402
from dapflow.tasks.models.names import resolve  # noqa: E402
from dapflow.tasks.models.policy import register_model  # noqa: E402
from dapflow.tasks.prompts.load import PROMPTS_FILE, load_prompts  # noqa: E402
from dapflow.tasks.prompts.sources import find_source  # noqa: E402
from dapflow.tasks.step import use_lake  # noqa: E402
from dapflow.tasks.training.rounds import online  # noqa: E402
from dapflow.tasks.training.rounds import round as rounds  # noqa: E402
from dapflow.tasks.training.rounds.learner import Learner  # noqa: E402
from dapflow.tasks.training.settings import Rounds  # noqa: E402

SPENT: Counter[str] = Counter()


def timed(what: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its seconds counted."""

    @wraps(function)
    def counted(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            SPENT[what] += time.perf_counter() - began

    return counted


@flow
def train(model: str, count: int) -> ModelRef:
    """An iteration of so many rounds."""
    source = find_source("shipped", PROMPTS_FILE)
    policy, prompts = (
        register_model(model, resolve(model).digest),
        load_prompts(source.name, source.digest, "train", 64, 0, 48),
    )
    began = time.perf_counter()
    trained = online.train_online(
        policy=policy, reference=policy, prompts=prompts, by=Program.of_word("shorter"), model=None, baseline=None, sampling=OAIF.sampling,
        rounds=Rounds(count=count, prompts=OAIF.rounds.prompts), lists=False, pairing=OAIF.pairing, loss=OAIF.loss, training=OAIF.training,
        seed=0,
    )  # fmt: skip
    SPENT["all"] += time.perf_counter() - began
    return trained


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="embedded:smollm2-135m")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    online.sampled = timed("sampling", online.sampled)
    rounds.scores_of = timed("judging", rounds.scores_of)
    Learner.learn = timed("learning", Learner.learn)  # type: ignore[method-assign]
    online._models, online._saved = (
        timed("loading", online._models),
        timed("saving the policy", online._saved),
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Lake(Path(folder) / "lake") as lake,
        use_lake(lake),
    ):
        train(arguments.model, arguments.rounds)
    total = SPENT.pop("all")
    SPENT["the rest: Prefect, the lake, pairs, checkpoints"] = total - sum(SPENT.values())
    for what, seconds in SPENT.most_common():
        print(f"{what:<48} {seconds / arguments.rounds:7.2f} s a round   {seconds / total:6.1%}")
