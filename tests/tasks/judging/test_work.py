"""How much a judge is asked, by its kind."""

from dataclasses import replace
from typing import Any

import pytest

from dapflow.storage import DatasetRef, Lake
from dapflow.tasks.judging.judges.base import Match
from dapflow.tasks.judging.judges.human import Human
from dapflow.tasks.judging.judges.lake_model import ModelJudge
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.judging.judges.policy import PolicyAsked
from dapflow.tasks.judging.judges.program import Program
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.spec import JudgeSpec
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.servers.client import Endpoint

PROMPTS = DatasetRef("prompts", "0" * 16, 10)
ANSWERS = DatasetRef("completions", "1" * 16, 40)
SCORES = Material.of(40, PROMPTS, ANSWERS)
MODEL = ModelJudge(version="2" * 16, ranker=False)


def none(lake: Lake) -> list[Match]:
    return []


COMPARISONS = replace(SCORES, verdicts=7, matches=none)


def llm(**settings: Any) -> LLM:
    return LLM(endpoint=Endpoint(model="gpt-4.1-mini"), **settings)


@pytest.mark.parametrize(
    ("by", "calls", "requests"),
    [
        (MODEL, 40, 0),
        (Program(name="shorter"), 40, 0),
        (llm(mode="ten"), 40, 40),
        (llm(mode="ten", samples=3, temperature=1), 3 * 40, 3 * 40),
    ],
)
def test_a_score_is_one_question_or_as_many_as_are_averaged(
    by: JudgeSpec, calls: int, requests: int
) -> None:
    work = by.work(SCORES)
    assert (work.calls, work.requests.count if work.requests else 0) == (calls, requests)


@pytest.mark.parametrize(("by", "calls"), [(llm(), 2 * 7), (Human(), 7), (MODEL, 7)])
def test_an_llm_compares_in_both_orders_and_all_others_are_asked_once(
    by: JudgeSpec, calls: int
) -> None:
    assert by.work(COMPARISONS).calls == calls


def test_a_reward_model_reads_each_prompt_once_and_a_ranker_both_answers_in_both_orders() -> None:
    # nothing is known of the answers' length here; a prompt has 60 tokens
    ranker = ModelJudge(version="2" * 16, ranker=True)
    assert MODEL.work(SCORES).scored == 10 * 60
    assert ranker.work(replace(SCORES, baseline=True)).scored == 2 * 40 * 60
    assert ranker.work(COMPARISONS).scored == 2 * 7 * 60


def test_a_policy_that_judges_itself_samples_its_judgements_and_pays_nobody() -> None:
    itself = PolicyAsked(sampler=Sampler(), chat_template=None)
    work = itself.work(replace(SCORES, verdicts=10))
    assert (work.calls, work.sampled, work.requests) == (30, 30 * 160, None)


def test_a_question_is_as_dear_as_the_answers_in_it_are_long() -> None:
    short, long = (
        llm().work(replace(COMPARISONS, answer_tokens=tokens)).requests for tokens in (10, 110)
    )
    assert short and long and short.usd and long.usd
    million = 0.4  # dollars for input of gpt-4.1-mini
    assert long.usd - short.usd == pytest.approx(2 * 100 * million / 1e6)
