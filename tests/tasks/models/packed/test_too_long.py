"""Rows longer than the toy's context of 512 tokens, through the steps themselves: training, reward
models, and judges. Run: pytest this file.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.evaluation.divergence import measure_displacement
from dapflow.tasks.judging.judges.base import Match, Question
from dapflow.tasks.judging.judges.pointwise import RewardModelJudge
from dapflow.tasks.judging.judges.ranker import RankerJudge
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.packed.lengths import left_out_too_long
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.prompts.preferences import PREFERENCES_FILE, Part, load_preferences
from dapflow.tasks.prompts.sources import find_source
from dapflow.tasks.step import use_lake
from dapflow.tasks.training.errors import NothingToLearnError
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.reward.train import train_reward_model
from dapflow.tasks.training.settings import Training
from dapflow.tasks.training.train import train

pytestmark = pytest.mark.usefixtures("prefect_server")
LONG = "on and on " * 600


def _source(folder: Path, long: int, of: int = 60) -> str:
    """A file of pairs, the first `long` of which have a chosen answer of thousands of tokens."""
    rows = [
        {
            "prompt": f"Count to {n}.",
            "chosen": LONG if n < long else f"It is {n}.",
            "rejected": "No.",
        }
        for n in range(of)
    ]
    file = folder / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


def _pairs(source: str, part: Part) -> Any:
    known = find_source(source, PREFERENCES_FILE)
    return load_preferences(known.name, known.digest, part)


@flow
def learn(source: str, loss: str) -> tuple[ModelRef, Any, Any]:
    policy, pairs = register_model("toy", resolve("toy").digest), _pairs(source, "reward")
    trained = train(
        policy=policy,
        reference=policy,
        pairs=[pairs],
        loss=Loss.of(loss),
        training=Training(),
        system=None,
        chat_template=None,
        seed=0,
    )
    return (
        trained,
        pairs,
        measure_displacement(
            trained, policy, pairs, most=60, system=None, chat_template=None, seed=0
        ),
    )


@flow
def reward_model(source: str, settings: RewardModel) -> tuple[ModelRef, Any, Any]:
    policy, labelled, test = (
        register_model("toy", resolve("toy").digest),
        _pairs(source, "reward"),
        _pairs(source, "test"),
    )
    return train_reward_model(policy, labelled, test, settings, 0), labelled, test


@pytest.mark.parametrize("loss", ["sigmoid_norm", "nll"])
def test_training_leaves_out_the_pairs_that_do_not_fit_and_the_lake_names_them(
    tmp_path: Path, lake: Lake, loss: str
) -> None:
    with use_lake(lake):
        trained, pairs, measured = learn(_source(tmp_path, long=20), loss)
    rows = lake.rows_of(pairs)
    long = {row["id"] for row in rows if row["chosen"] == LONG}
    assert 0 < len(long) < len(rows)
    assert left_out_too_long(lake, trained.version) == long
    [model] = lake.rows_of(trained)
    assert json.loads(model["recipe"])["pairs"] == len(rows) - len(long)
    assert {row["name"]: row["value"] for row in lake.rows_of(measured)}[
        "chosen_logp_change"
    ] is not None


def test_when_nothing_fits_training_says_so_before_it_computes(tmp_path: Path, lake: Lake) -> None:
    with (
        use_lake(lake),
        pytest.raises(
            NothingToLearnError, match="are longer than the model's context of 512 tokens"
        ),
    ):
        learn(_source(tmp_path, long=60), "sigmoid_norm")


def test_a_reward_model_learns_from_what_fits_and_gives_no_verdict_on_what_does_not(
    tmp_path: Path, lake: Lake
) -> None:
    with use_lake(lake):
        made, labelled, test = reward_model(_source(tmp_path, long=15), RewardModel())
    long = {
        row["id"] for ref in (labelled, test) for row in lake.rows_of(ref) if row["chosen"] == LONG
    }
    assert left_out_too_long(lake, made.version) == long != set()
    questions = [
        Question(completion_id=f"c-{n}", prompt="Why?", completion=text)
        for n, text in enumerate(("So.", LONG, "Because."))
    ]
    first, unread, last = RewardModelJudge(lake, made).judge(questions)
    assert (first.outcome, unread.outcome, last.outcome) == ("scored", "invalid", "scored")
    assert "do not fit the judge's context of 512" in (unread.note or "")
    [alone] = RewardModelJudge(lake, made).judge(questions[2:])
    assert alone.score == pytest.approx(last.score)


def test_a_ranker_learns_from_what_fits_and_gives_no_verdict_on_half_a_question(
    tmp_path: Path, lake: Lake
) -> None:
    with use_lake(lake):
        made, labelled, test = reward_model(
            _source(tmp_path, long=15), RewardModel(form="pairwise", parameters="lora")
        )
    long = {
        row["id"] for ref in (labelled, test) for row in lake.rows_of(ref) if row["chosen"] == LONG
    }
    assert left_out_too_long(lake, made.version) == long != set()
    judge = RankerJudge(lake, made, {"Why?": "No."})
    questions = [
        Question(completion_id=f"c-{n}", prompt="Why?", completion=text)
        for n, text in enumerate((LONG, "So."))
    ]
    assert [verdict.outcome for verdict in judge.judge(questions)] == ["invalid", "scored"]
    matches = [
        Match(completion_id="m", other_id="o", prompt="Why?", first=text, second="No.")
        for text in ("So.", LONG)
    ]
    read, unread = judge.compare(matches)
    assert read.score is not None and (unread.outcome, unread.score) == ("invalid", None)
