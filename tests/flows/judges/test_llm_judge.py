"""`dapflow run` and `plan` with an LLM as the judge: compared pairs, compared policies, nothing
paid twice, what it cost.
"""

from pathlib import Path

import pytest

from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import RSO, SFT_SAMPLE_RANK
from dapflow.storage import Lake, UserError
from dapflow.tasks.judging.judges.llm import LLM
from tests.helpers.judging import longer
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.toy import quick

MODEL = "judge={kind: llm, endpoint: {model: judge}}"


@pytest.mark.usefixtures("prefect_server")
def test_pairs_and_policies_are_compared_in_both_orders_and_a_second_recipe_pays_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    behaviour = Behaviour(reply=longer, likeliest=lambda prompt: {longer(prompt): -0.1, "x": -5.0})
    with openai_server(behaviour) as url:
        settings = (
            MODEL, f"judge.endpoint.base_url={url}", "evaluation.judge={kind: llm, endpoint: {model: referee}}", f"evaluation.judge.endpoint.base_url={url}",
            "loss.soft_labels=true",
        )  # fmt: skip
        code, plan, err = quick("plan", tmp_path, capsys, *settings)
        assert code == 0, err
        assert (plan["judge_calls"], plan["paid"]["calls"], plan["paid"]["usd"]) == (
            2 * 4 + 2 * 6,
            20,
            0.0,
        )  # one pair a prompt of three
        code, result, err = quick("run", tmp_path, capsys, *settings)
        assert code == 0, err
        asked = len(behaviour.asked)
        assert 0 < asked <= 20
        _, plan, _ = quick("plan", tmp_path, capsys, *settings, "judge.budget.max_calls=999")
        assert (plan["paid"]["known"], plan["paid"]["calls"]) == (
            sum(body["model"] == "judge" for body in behaviour.asked),
            20,
        )
        code, again, err = quick("run", tmp_path, capsys, *settings, "judge.budget.max_calls=0")
        assert code == 0, err
        judged_again = [body for body in behaviour.asked[asked:] if body["model"] == "judge"]
        assert judged_again == []
    [one] = result["iterations"]
    judging = one["judging"]
    assert (judging["calls"], judging["usd"], judging["usd_per_pair"]) == (asked, 0.0, 0.0)
    assert one["judges"]["training"] == {
        "judge": "judge pairwise-v2", "consistency": 1.0, "consistency_high": pytest.approx(1.0), "consistency_low": pytest.approx(0.5, abs=0.3),
        "first": pytest.approx(0.5, abs=0.01), "first_low": pytest.approx(0.2, abs=0.2), "first_high": pytest.approx(0.8, abs=0.2),
    }  # fmt: skip
    figures, later = (
        {row["name"]: row["value"] for row in each["iterations"][0]["metrics"]}
        for each in (result, again)
    )
    needed = sum(body["model"] == "judge" for body in behaviour.asked)
    assert (figures["api_calls"], figures["api_usd"], 2 * figures["api_answers"]) == (
        needed,
        0.0,
        needed,
    )  # a pair is asked in both orders
    assert (later["api_calls"], later["api_answers"]) == (
        0,
        figures["api_answers"],
    )  # known already, and needed all the same
    assert (figures["people_prompts"], figures["renewed_share"]) == (0, 1.0)
    with Lake(tmp_path) as lake:
        [policy] = lake.rows("SELECT * FROM models WHERE version = ?", [one["policy"]])
        [pairs] = lake.rows(
            "SELECT parent FROM edges WHERE child = ? AND role = 'pairs[0]'", [policy["version"]]
        )
        rows = lake.rows(
            "SELECT * FROM pairs WHERE version = ? AND dropped IS NULL", [pairs["parent"]]
        )
        assert len(rows) == one["pairs"] > 0
        assert all(
            len(row["chosen"]) > len(row["rejected"]) and row["probability"] > 0.9 for row in rows
        )
        assert all(row["margin"] == pytest.approx(2 * row["probability"] - 1) for row in rows)
        verdicts = lake.rows(
            "SELECT * FROM verdicts WHERE judge LIKE 'judge %' AND outcome IN ('win', 'lose')"
        )
        assert all(
            row["score"] == pytest.approx(0.5 + (row["forward"] - row["backward"]) / 2)
            for row in verdicts
        )
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if b"planted-secret" in path.read_bytes()]


@pytest.mark.usefixtures("prefect_server")
def test_a_judge_that_always_says_first_makes_no_pair(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with openai_server(Behaviour(reply=lambda prompt: "1")) as url:
        code, _, err = quick(
            "run",
            tmp_path,
            capsys,
            MODEL,
            f"judge.endpoint.base_url={url}",
            "evaluation.judge=shorter",
        )
    assert code == 2
    with Lake(tmp_path, read_only=True) as lake:
        reasons = lake.rows(
            "SELECT dropped, count(*) AS pairs FROM pairs WHERE source = 'compared' GROUP BY dropped ORDER BY pairs DESC"
        )
        told = " ".join(err.split())
        assert "No pair is left to train on: " in told
        assert "tie" in {row["dropped"] for row in reasons}
        assert all(f"{row['pairs']} {row['dropped']}" in told for row in reasons)
        verdicts = lake.rows(
            "SELECT outcome, score, forward, backward FROM verdicts WHERE judge = 'judge pairwise-v2'"
        )
        asked = [row for row in verdicts if row["forward"] is not None]
        assert asked and all(
            row == {"outcome": "tie", "score": 0.5, "forward": 1.0, "backward": 1.0}
            for row in asked
        )
        assert lake.rows(
            "SELECT DISTINCT dropped IS NULL AS kept FROM pairs WHERE source = 'compared'"
        ) == [{"kept": False}]
        biases = {
            row["name"]: row["value"]
            for row in lake.rows(
                "SELECT * FROM metrics WHERE name IN ('position_consistency', 'first_place_wins')"
            )
        }
    assert biases == {"position_consistency": 0.0, "first_place_wins": 1.0}


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_judge_that_scores_takes_the_way_of_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour = Behaviour(reply=lambda prompt: f"Score: {1 + len(prompt) % 10}")
    with openai_server(behaviour) as url:
        settings = (MODEL, f"judge.endpoint.base_url={url}", "judge.mode=ten")
        code, result, err = quick("run", tmp_path, capsys, *settings, recipe="rso")
        assert code == 0, err
        _, plan, _ = quick(
            "plan", tmp_path, capsys, *settings, "judge.instruction=Brief.", recipe="rso"
        )
        assert plan["paid"]["known"] == 0
        _, plan, _ = quick(
            "plan", tmp_path, capsys, *settings, "judge.budget.max_calls=999", recipe="rso"
        )
        assert 0 < plan["paid"]["known"] <= len(behaviour.asked)
    [one] = result["iterations"]
    assert 1 <= one["reward_before"] <= 10
    with Lake(tmp_path, read_only=True) as lake:
        scores = {
            row["score"]
            for row in lake.rows(
                "SELECT score FROM verdicts WHERE judge = 'judge ten-v1' AND outcome = 'scored'"
            )
        }
    assert scores <= set(range(1, 11))


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        ("judge=llm", "judge.endpont.model=x", r"did you mean `judge.endpoint`\?"),
        ("judge=llm", "judge.endpoint.model=", r"`judge.endpoint.model` must be a valid string"),
        ("judge=llm", "judge.mode=best", r"`judge.mode` must be 'pairwise', 'additive', 'ten' or"),
        ("judge=llm", "judge.mode=ten", r"`judge`: an LLM judge needs endpoint.model"),
        (
            "judge=llm",
            "judge.budget.max_cost_usd=-1",
            r"`judge.budget.max_cost_usd` must be greater than or equal to 0",
        ),
        (
            "evaluation.judge=llm",
            "evaluation.judge.endpoint.concurrency=0",
            r"`evaluation.judge.endpoint.concurrency` must be greater than or equal to 1",
        ),
        (
            "evaluation.judge=reward-model",
            "evaluation.judge.layers=-1",
            r"`evaluation.judge.layers` must be greater than or equal to 0, not -1",
        ),
        (
            "evaluation.judge=reward-model",
            "evaluation.judge.layrs=1",
            r"did you mean `evaluation.judge.layers`",
        ),
        (
            "judge=reward-model",
            "judge.endpoint.model=x",
            r"`judge.endpoint` is a setting of another kind of judge: set judge.kind=llm too",
        ),
        ("judge={mode: ten}", "seed=1", r"`judge`: a judge with settings needs its kind: one of"),
        ("judge={kind: oracle}", "seed=1", r"there is no kind of judge `oracle`: kind is one of"),
    ],
)
def test_a_wrong_setting_of_a_judge_is_named(kind: str, setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(SFT_SAMPLE_RANK, [setting, kind])


def test_settings_make_a_judge_an_llm() -> None:
    changed = change(
        SFT_SAMPLE_RANK,
        [
            MODEL,
            "judge.instruction=be brief",
            "evaluation.judge={kind: llm, endpoint: {model: referee}}",
        ],
    )
    assert isinstance(changed.judge, LLM)
    assert (changed.judge.endpoint.model, changed.judge.instruction) == ("judge", "be brief")
    assert isinstance(changed.evaluation.judge, LLM)
    assert type(changed).model_validate(changed.model_dump(mode="json")) == changed


def test_a_rule_that_needs_scores_does_not_go_with_a_judge_that_compares() -> None:
    with pytest.raises(
        UserError,
        match=r"gives no scores, without which there is no acceptance.rule=rso: set judge.mode=ten",
    ):
        change(RSO, [MODEL])


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_budget_in_dollars_needs_a_price(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (MODEL, "judge.budget.max_cost_usd=1", "judge.endpoint.base_url=http://10.0.0.9/v1")
    code, _, err = quick(command, tmp_path / "lake", capsys, *settings)
    assert code == 2
    assert "Nobody knows what judge costs, so max_cost_usd cannot be kept" in err
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_the_plan_of_rounds_counts_every_call_also_in_a_lake_that_knows_the_prompts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    behaviour = Behaviour(reply=longer)
    with openai_server(behaviour) as url:
        settings = (
            MODEL,
            f"judge.endpoint.base_url={url}",
            "rounds.count=2",
            "rounds.prompts=3",
            "sampling.n=4",
        )
        code, _, err = quick("run", tmp_path, capsys, *settings, recipe="oaif")
        assert code == 0, err
        code, plan, err = quick("plan", tmp_path, capsys, *settings, "seed=1", recipe="oaif")
        assert code == 0, err
        assert (
            plan["paid"]["calls"] == 2 * 3 * 2 * 2
        )  # rounds, prompts, pairs of four answers, orders
        assert 0 < len(behaviour.asked) <= plan["paid"]["calls"]
        _, plan, _ = quick("plan", tmp_path, capsys, *settings, "judge.mode=ten", recipe="oaif")
        assert (
            plan["paid"]["calls"] == 2 * 3 * 4 + 2 * 6
        )  # every answer; and the held-out answers of both policies
