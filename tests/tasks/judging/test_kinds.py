"""Kinds of judges: words and plain values become judges, and a new kind is a class and a line."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from dapflow.flows.align import chosen
from dapflow.flows.recipes.changes import change, origins
from dapflow.flows.recipes.methods import RECIPES, RSO
from dapflow.storage import Lake, UserError
from dapflow.tasks.judging import kinds
from dapflow.tasks.judging.judges.base import Question, Verdict
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.judging.judges.reward_model import RewardModel
from dapflow.tasks.judging.kinds import KINDS, kind, spec_of
from dapflow.tasks.judging.spec import JudgeSpec, Opening
from tests.helpers.toy import QUICK, dapflow, words


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_a_class_that_says_its_own_name(name: str) -> None:
    assert kind(name).model_fields["kind"].default == name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("reward-model", "reward-model"),
        ("models@0123456789abcdef", "lake-model"),
        ("policy", "policy"),
        ("human", "human"),
        ("shorter", "program"),
        ("./judge.py:score", "program"),
        ("regex:human", "program"),
    ],
)
def test_a_word_stands_for_a_judge(word: str, name: str) -> None:
    assert type(spec_of(word)) is kind(name)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_judges_come_back_from_plain_values(recipe: object) -> None:
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe  # type: ignore[attr-defined]


def test_settings_of_a_judge_follow_its_kind_in_whatever_order_they_stand() -> None:
    settings = ["judge.weights.brief=2", "judge.members.good=reward-model"]
    settings += ["judge.members.brief=shorter", "judge=composite"]
    changed = change(RSO, settings).judge
    assert changed == spec_of(
        {
            "kind": "composite",
            "members": {"good": "reward-model", "brief": "shorter"},
            "weights": {"brief": 2.0},
        }
    )
    assert origins(change(RSO, settings))["judge.members"].startswith("recipe; ")


def test_a_reward_model_without_settings_is_the_recipe_s() -> None:
    reward = RewardModel(layers=3)
    composite = spec_of({"kind": "composite", "members": {"a": "reward-model", "b": "json"}})
    assert RewardModel().with_reward(reward) is reward
    assert RewardModel(layers=9).with_reward(reward) == RewardModel(layers=9)
    assert composite.with_reward(reward).members["a"] is reward


class Vowels(JudgeSpec):
    """A kind of a test's own: the more vowels, the better."""

    kind: Literal["vowels"] = "vowels"
    least: int = 0

    def __str__(self) -> str:
        return f"vowels from {self.least}"

    @property
    def compares(self) -> bool:
        return False

    @contextmanager
    def open(self, opening: Opening) -> Iterator["Counts"]:
        opening.say("counting vowels")
        yield Counts(self.least)


class Counts:
    """It counts."""

    name = "vowels"
    together = False

    def __init__(self, least: int) -> None:
        self._least = least

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        for question in questions:
            vowels = sum(letter in "aeiou" for letter in question.completion)
            yield Verdict(outcome="scored", score=float(max(vowels, self._least)))
            if on_rows:
                on_rows(1)


@pytest.mark.usefixtures("prefect_server")
def test_a_kind_of_one_file_and_one_line_judges_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kinds.KINDS, "vowels", f"{__name__}:Vowels")
    settings = ("judge=vowels", "judge.least=1", "evaluation.judge=vowels")
    command = ("rso", "--toy", "--lake", str(tmp_path / "lake"), *words(*QUICK, *settings))
    code, out, err = dapflow("plan", *command, capsys=capsys)
    assert code == 0, err
    assert "by vowels from 1" in out
    code, out, err = dapflow("run", *command, capsys=capsys)
    assert code == 0, err
    with Lake(tmp_path / "lake", read_only=True) as lake:
        scores = lake.rows("SELECT DISTINCT score FROM verdicts WHERE judge = 'vowels'")
    assert min(row["score"] for row in scores if row["score"] is not None) >= 0.0
    assert len(scores) > 2
    with pytest.raises(UserError, match="there is no key `judge.most`|A recipe has no key"):
        chosen("rso", ["judge=vowels", "judge.most=1"], toy=True)


def test_a_judge_s_code_is_part_of_its_verdicts_and_of_no_other_kind_s() -> None:
    program, reward = Program(name="shorter").content(), spec_of("human").content()
    assert program["code"] != reward["code"]
