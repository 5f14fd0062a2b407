"""Every method end to end on the toy model, two iterations, twice: on one lake, so that what
methods have in common is done once.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.align import align
from dapflow.flows.recipes.methods import RECIPES
from dapflow.storage import Lake
from dapflow.tasks.step.progress import StepRecord, report_to
from tests.helpers.judging import responses
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.toy import QUICK

pytestmark = pytest.mark.methods
SETTINGS = [*QUICK, "prompts.per_iteration=5"]
ONLINE = [name for name in RECIPES if name != "rso"]  # that: test_run.py


class Records:
    """A reporter that keeps what it hears."""

    def __init__(self) -> None:
        self.records: list[StepRecord] = []

    def started(self, name: str) -> None: ...
    def advanced(self, done: float, total: float, unit: str, note: str = "") -> None: ...
    def said(self, sentence: str) -> None: ...
    def finished(self, record: StepRecord) -> None:
        self.records.append(record)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    return tmp_path_factory.mktemp("methods") / "lake"


def run(
    recipe: str, lake: Path, iterations: int = 2, *settings: str
) -> tuple[dict[str, Any], list[StepRecord]]:
    reporter = Records()
    with report_to(reporter):
        result = align(recipe, iterations, [*SETTINGS, *settings], True, str(lake))
    return result, reporter.records


@pytest.mark.parametrize("recipe", ONLINE)
def test_every_method_runs_two_iterations_and_the_second_time_all_is_cached(
    recipe: str, shared: Path
) -> None:
    first, records = run(recipe, shared)
    again, cached = run(recipe, shared)
    assert {record.state for record in cached} == {"cached"}
    assert [record.version for record in records] == [record.version for record in cached]
    assert first["iterations"] == again["iterations"]
    one, two = first["iterations"]
    assert one["policy"] != two["policy"]
    assert all(iteration["pairs"] or iteration["answers"] for iteration in (one, two))


@pytest.fixture
def opened(shared: Path) -> Iterator[Lake]:
    with Lake(shared) as lake:
        yield lake


def trained(records: list[StepRecord]) -> list[str]:
    return [record.version for record in records if record.name.startswith("train with")]


def parents(lake: Lake, model: str) -> dict[str, str]:
    return {
        row["role"]: row["parent"]
        for row in lake.rows("SELECT role, parent FROM edges WHERE child = ?", [model])
    }


def test_offline_methods_learn_from_the_same_pairs_of_people_and_nobody_samples_for_training(
    shared: Path, opened: Lake
) -> None:
    _, dpo = run("dpo", shared, 1)
    _, ipo = run("ipo", shared, 1)
    assert (
        parents(opened, trained(dpo)[0])["pairs[0]"] == parents(opened, trained(ipo)[0])["pairs[0]"]
    )
    assert not any(record.name.startswith("sample 5") for record in dpo)
    figures = {
        row["name"]: row["value"]
        for row in opened.rows(
            "SELECT name, value FROM metrics WHERE version = ?", [trained(dpo)[0]]
        )
    }
    assert figures["own_share"] == 0
    assert "mean_lag" not in figures


def test_iterative_dpo_adds_its_own_samples_to_the_pairs_of_people_and_is_its_own_reference(
    shared: Path, opened: Lake
) -> None:
    _, records = run("iterative-dpo", shared)
    one, two = trained(records)
    assert parents(opened, two)["policy"] == parents(opened, two)["reference"] == one
    people, own = parents(opened, two)["pairs[0]"], parents(opened, two)["pairs[1]"]
    assert people == parents(opened, one)["pairs[0]"]
    assert {
        row["source"] for row in opened.rows("SELECT source FROM pairs WHERE version = ?", [own])
    } == {"best-worst"}
    figures = {
        row["name"]: row["value"]
        for row in opened.rows("SELECT name, value FROM metrics WHERE version = ?", [two])
    }
    assert 0 < figures["own_share"] < 0.1


def test_rejection_sampling_imitates_the_best_of_all_iterations_from_the_initial_weights(
    shared: Path, opened: Lake
) -> None:
    _, records = run("rejection-sampling", shared, 2, "prompts.schedule=same")
    one, two = trained(records)
    assert (
        parents(opened, two)["policy"] == parents(opened, one)["policy"]
    )  # both from the initial policy
    accepted = opened.rows(
        "SELECT * FROM acceptances WHERE version = ? AND (accepted OR note IS NULL)",
        [parents(opened, two)["answers"]],
    )
    texts = {
        row["id"]: row
        for row in opened.rows("SELECT id, text, finish_reason, version FROM completions")
    }
    prompts = {row["id"]: row["prompt"] for row in opened.rows("SELECT id, prompt FROM prompts")}
    assert (
        len({texts[row["completion_id"]]["version"] for row in accepted}) == 2
    )  # the samples of both iterations compete
    for prompt in {prompts[row["prompt_id"]] for row in accepted}:
        rows = [row for row in accepted if prompts[row["prompt_id"]] == prompt]
        finished = [
            row["reward"] for row in rows if texts[row["completion_id"]]["finish_reason"] == "stop"
        ]
        assert [row["reward"] for row in rows if row["accepted"]] == (
            [max(finished)] if finished else []
        )


def test_rest_improves_on_fewer_and_better_answers_each_time(shared: Path, opened: Lake) -> None:
    _, records = run("rest", shared, 1)
    stages = trained(records)
    assert [parents(opened, stage)["policy"] for stage in stages[1:]] == stages[:-1]
    least, counts = list[float](), list[int]()
    for stage in stages:
        rows = opened.rows(
            "SELECT reward FROM acceptances WHERE version = ? AND accepted",
            [parents(opened, stage)["answers"]],
        )
        least.append(min(row["reward"] for row in rows))
        counts.append(len(rows))
    assert least == sorted(least)
    assert counts == sorted(counts, reverse=True)
    rates = [
        json.loads(opened.rows("SELECT recipe FROM models WHERE version = ?", [one])[0]["recipe"])
        for one in stages
    ]
    assert [one["training"]["learning_rate"] for one in rates] == [5e-5, 2.5e-5, 1.25e-5]


def test_spin_prefers_people_s_answers_to_those_of_the_iterate_that_is_its_reference(
    shared: Path, opened: Lake
) -> None:
    _, records = run("spin", shared, 3)
    third = parents(opened, trained(records)[2])
    assert third["reference"] == third["policy"] == trained(records)[1]
    assert {"pairs[0]", "pairs[1]"} <= third.keys()
    assert "pairs[2]" not in third  # the data of the last two iterations
    rows = opened.rows("SELECT * FROM pairs WHERE version = ?", [third["pairs[1]"]])
    policies = {
        row["id"]: row["policy"] for row in opened.rows("SELECT id, policy FROM completions")
    }
    assert {policies[row["chosen_id"]] for row in rows} == {None}
    assert {policies[row["rejected_id"]] for row in rows} == {third["policy"]}


def test_rrhf_ranks_people_s_answers_and_its_own_in_one_list(shared: Path, opened: Lake) -> None:
    _, records = run("rrhf", shared, 1)
    [model] = trained(records)
    rows = opened.rows(
        "SELECT a.prompt_id, c.policy FROM acceptances a JOIN completions c ON c.id = a.completion_id WHERE a.version = ? AND a.accepted",
        [parents(opened, model)["answers"]],
    )
    for prompt in {row["prompt_id"] for row in rows}:
        sources = [row["policy"] for row in rows if row["prompt_id"] == prompt]
        assert sources.count(None) == 2  # people's chosen and rejected
    assert len(rows) > 2 * len({row["prompt_id"] for row in rows})  # and own ones that ended


def obliging(prompt: str) -> str:
    """A judge that takes the longer answer, and the shorter one where people have said that they
    prefer it.
    """
    first, second = responses(prompt)
    wanted = min if "short answers" in prompt.partition("<question>")[0] else max
    return "1" if wanted((first, second), key=len) == first else "2"


def test_a_preference_in_plain_words_makes_the_answers_of_oaif_shorter(shared: Path) -> None:
    settings = (
        "prompts.per_iteration=32",
        "prompts.held_out=32",
        "evaluation.sampling.n=2",
        "sampling.max_tokens=32",  # so that most answers end: one that did not meets no other
        "rounds.prompts=8",
    )
    lengths = dict[str, tuple[float, float]]()
    with openai_server(Behaviour(reply=obliging)) as url:
        asked = (
            "judge=llm",
            "judge.endpoint.model=judge",
            f"judge.endpoint.base_url={url}",
            "training.learning_rate=0.0003",
            "rounds.count=16",
        )
        for name, instruction in (
            ("plain", ()),
            ("short", ("judge.instruction=They like short answers.",)),
        ):
            result, _ = run("oaif", shared, 1, *settings, *asked, *instruction)
            figures = {row["name"]: row["value"] for row in result["iterations"][0]["metrics"]}
            lengths[name] = figures["length_before"], figures["length_after"]
    before, short = lengths["short"]
    assert short < before < lengths["plain"][1]
