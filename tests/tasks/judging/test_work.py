"""How much a judge is asked, by who it is."""

from typing import Any

import pytest

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.programs import Program
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.judging.work import (
    By,
    Material,
    comparing,
    judging_itself,
    judging_rounds,
    ranking,
    scoring,
)
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.step import Work

PROMPTS = DatasetRef("prompts", "0" * 16, 10)
ANSWERS = DatasetRef("completions", "1" * 16, 40)
JUDGE = ModelRef("models", "2" * 16, 1)
MATERIAL = Material(read=(PROMPTS, ANSWERS), answers=(ANSWERS,))


def llm(**settings: Any) -> LLM:
    return LLM(endpoint=Endpoint(model="gpt-4.1-mini"), **settings)


def scored(by: By, baseline: DatasetRef | None = None) -> Work:
    return scoring(by, MATERIAL, baseline, lambda lake: ())


@pytest.mark.parametrize(
    ("by", "calls", "requests"),
    [
        (JUDGE, 40, 0),
        (Program(name="shorter"), 40, 0),
        (llm(mode="ten"), 40, 40),
        (llm(mode="ten", samples=3, temperature=1), 3 * 40, 3 * 40),
    ],
)
def test_a_score_is_one_question_or_as_many_as_are_averaged(
    by: By, calls: int, requests: int
) -> None:
    work = scored(by)
    assert (work.calls, work.requests.count if work.requests else 0) == (calls, requests)


@pytest.mark.parametrize(
    ("by", "calls"), [(llm(), 2 * 7), (Human(), 7), (Program(name="shorter", compares=True), 7)]
)
def test_an_llm_compares_in_both_orders_and_all_others_are_asked_once(
    by: LLM | Human | Program, calls: int
) -> None:
    assert comparing(by, 7, MATERIAL, lambda lake: ()).calls == calls


def test_a_reward_model_reads_each_prompt_once_and_a_ranker_both_answers_in_both_orders() -> None:
    # nothing is known of the answers' length here; a prompt has 60 tokens
    assert scored(JUDGE).scored == 10 * 60
    assert scored(JUDGE, baseline=ANSWERS).scored == 2 * 40 * 60
    assert ranking(5, PROMPTS, ANSWERS).scored == 2 * 5 * 60


def test_a_policy_that_judges_itself_samples_its_judgements_and_pays_nobody() -> None:
    work = judging_itself(SelfJudge(), 10)
    assert (work.calls, work.sampled, work.requests) == (30, 30 * 160, None)


def test_rounds_judge_each_answer_or_each_two() -> None:
    assert judging_rounds(JUDGE, 6, 4, 10).calls == 6 * 4
    assert judging_rounds(llm(), 6, 4, 10).calls == 6 * 2 * 2  # two matches, in both orders


def test_a_question_is_as_dear_as_the_answers_in_it_are_long() -> None:
    short, long = (judging_rounds(llm(), 6, 4, tokens).requests for tokens in (10, 110))
    assert short and long and short.usd and long.usd
    million = 0.4  # dollars for input of gpt-4.1-mini
    assert long.usd - short.usd == pytest.approx(2 * 100 * million / 1e6)
