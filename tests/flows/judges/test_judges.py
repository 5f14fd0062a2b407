"""`dapflow run` and `plan` with programs and composites as judges, of the training pairs and of the
result.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.align import chosen
from dapflow.storage import Lake, UserError
from tests.helpers.toy import QUICK, dapflow, quick, words

PROGRAMS = """
def nearer(prompt, first, second, answer):
    '''Whichever is nearer to the answer in length.'''
    return 0.5 + 0.5 * ((away(second, answer) > away(first, answer)) - (away(second, answer) < away(first, answer)))

def away(completion, answer):
    return abs(len(completion) - int(answer))
"""


@pytest.fixture
def programs(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(PROGRAMS)
    return str(tmp_path / "mine.py")


def prompts(path: Path, **fields: Any) -> str:
    """A file of prompts that all have these fields."""
    path.write_text(
        "\n".join(json.dumps({"prompt": f"Say it {n} times.", **fields}) for n in range(12))
    )
    return f"prompts.source={path}"


@pytest.mark.usefixtures("prefect_server")
def test_a_program_compares_with_the_reference_answer_and_another_measures(
    tmp_path: Path, programs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (
        prompts(tmp_path / "prompts.jsonl", answer=20),
        f"judge={programs}:nearer",
        "evaluation.judge=shorter",
    )
    code, _, err = quick("plan", tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    code, result, err = quick("run", tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    [title] = [step["name"] for step in result["steps"] if step["name"].startswith("compare 12")]
    assert title.endswith("by mine.py:nearer")
    [one] = result["iterations"]
    assert one["judges"]["evaluation"] == {"judge": "shorter"}
    assert (one["judges"]["training"]["judge"], one["judges"]["training"]["consistency"]) == (
        "mine.py:nearer",
        1.0,
    )
    with Lake(tmp_path / "lake", read_only=True) as lake:
        assert {
            row["answer"]
            for row in lake.rows("SELECT answer FROM prompts WHERE source LIKE 'prompts.jsonl%'")
        } == {"20"}
        pairs = lake.rows(
            "SELECT chosen, rejected FROM pairs WHERE dropped IS NULL AND source = 'compared'"
        )
    assert len(pairs) == one["pairs"] > 0
    assert all(abs(len(pair["chosen"]) - 20) < abs(len(pair["rejected"]) - 20) for pair in pairs)


def verdicts_of(lake: Lake, judge: str) -> list[dict[str, Any]]:
    return lake.rows("SELECT * FROM verdicts WHERE judge = ? ORDER BY version, id", [judge])


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_weighted_sum_is_a_step_over_its_members_and_another_weight_judges_nothing_again(
    tmp_path: Path, programs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    members = ("judge=composite", "judge.members.brief=shorter", "judge.members.good=reward-model")
    majority = f"evaluation.judge={{kind: composite, rule: majority, members: {{a: shorter, b: on-topic, c: '{programs}:nearer'}}}}"
    common = (prompts(tmp_path / "prompts.jsonl", answer=20), *members, majority)
    code, plan, err = quick(
        "plan", tmp_path / "lake", capsys, *common, "judge.weights.brief=0.25", recipe="rso"
    )
    assert code == 0, err
    assert {step["name"] for step in plan["steps"]} >= {"sum of brief, good", "majority of a, b, c"}
    states = list[dict[str, str]]()
    for weight in ("0.25", "0.5"):
        code, result, err = quick(
            "run", tmp_path / "lake", capsys, *common, f"judge.weights.brief={weight}", recipe="rso"
        )
        assert code == 0, err
        states.append(
            {
                step["name"]: step["state"]
                for step in result["steps"]
                if step["name"].startswith("judge 12")
            }
        )
    assert set(states[0].values()) == {"run"}
    assert set(states[1].values()) == {"cached"}
    [one] = result["iterations"]
    assert (one["judges"]["training"]["judge"], one["judges"]["evaluation"]["judge"]) == (
        "sum of brief, good",
        "majority of a, b, c",
    )
    with Lake(tmp_path / "lake", read_only=True) as lake:
        sums = verdicts_of(lake, "sum of brief, good")
        rows = lake.rows(
            "SELECT completion_id, judge, score FROM verdicts WHERE outcome = 'scored' AND other_id IS NULL"
        )
        scores: dict[str, dict[str, float]] = {}
        for row in rows:
            scores.setdefault(row["completion_id"], {})[
                "brief" if row["judge"] == "shorter" else row["judge"]
            ] = row["score"]
        reward = next(
            row["version"]
            for row in lake.rows(
                "SELECT version FROM models WHERE name LIKE 'reward model%' ORDER BY version"
            )
        )
        scored = [row for row in sums if row["outcome"] == "scored"]
        weights = {
            round(
                (row["score"] - scores[row["completion_id"]][reward])
                / scores[row["completion_id"]]["brief"],
                6,
            )
            for row in scored
        }
        assert weights == {0.25, 0.5}
        assert {row["outcome"] for row in sums} <= {
            "scored",
            "invalid",
        }  # an empty completion is no member's to judge
        votes = verdicts_of(lake, "majority of a, b, c")
        assert {round(row["score"], 6) for row in votes if row["outcome"] == "win"} <= {
            round(share / 6, 6) for share in (4, 5, 6)
        }


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (
            "{programs}:nearer",
            "a judge that compares two answers gives no scores, without which there is no acceptance.rule=rso",
        ),
        ("{programs}:away", "takes completion, answer: it must take (prompt, completion)"),
        (
            "{{kind: composite, rule: minimum, members: {{a: json}}}}",
            "`judge`: a composite needs at least two members",
        ),
        (
            "{{kind: composite, rule: safety-first, members: {{a: json, b: shorter}}}}",
            "safety-first: its members are called safety and helpfulness",
        ),
        (
            "{{kind: composite, members: {{a: json, b: shorter}}, weights: {{c: 1}}}}",
            "weights: there is no member c",
        ),
        ("{{kind: composite, members: {{a: json, b: nobody}}}}", "There is no judge `nobody`"),
        (
            "{{kind: composite, members: {{a: json, b: {{kind: llm, endpoint: {{modl: x}}}}}}}}",
            "there is no key `judge.members.b.endpoint.modl`",
        ),
        (
            "{{kind: composite, members: {{a: json, b: '{programs}:nearer'}}}}",
            "The judge's rule sum needs members that all score, or, for a sum",
        ),
        (
            "{{kind: composite, rule: majority, members: {{a: json, b: shorter}}}}",
            "a judge that compares two answers gives no scores",
        ),
        (
            "{{kind: composite, members: {{a: json, b: human}}}}",
            "The judge's rule sum needs members that all score, or, for a sum",
        ),
        (
            "{{kind: composite, rule: minimum, members: {{a: human, b: {{kind: human, person: ben}}}}}}",
            "The judge's rule minimum needs scores, and its members compare",
        ),
        (
            "{{kind: composite, members: {{a: json, b: policy}}}}",
            "b: the policy judges alone, since it is measured each iteration and replaced where it",
        ),
        (
            "{{kind: composite, members: {{a: json, b: {{kind: policy, mode: ten}}}}}}",
            "set judge=policy, or serve a policy (`dapflow serve`) and name it as an LLM",
        ),
    ],
)
def test_judges_that_do_not_go_together_are_said_before_anything_is_run(
    programs: str, judge: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        chosen("rso", [f"judge={judge.format(programs=programs)}"], toy=True)


@pytest.mark.usefixtures("prefect_server")
def test_a_policy_is_trained_on_what_a_program_verifies_and_measured_on_other_instructions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("judge=follows", "prompts.source=shipped-instructions", "sampling.n=4")
    settings += ("prompts.per_iteration=12", "sampling.max_tokens=12")  # fewer are all ties
    settings += ("evaluation.instructions.prompts=3", "evaluation.instructions.max_tokens=4")
    code, result, err = quick("run", tmp_path / "lake", capsys, *settings, recipe="rso")
    assert code == 0, err
    figures = {row["name"]: row for row in result["iterations"][0]["metrics"]}
    for name in ("instructions_followed", "instructions_whole"):
        assert 0 <= figures[f"{name}_before"]["value"] <= 1
        low, change, high = (figures[f"{name}_change"][key] for key in ("low", "value", "high"))
        assert -1 <= low <= change <= high <= 1
    with Lake(tmp_path / "lake", read_only=True) as lake:
        scores = lake.rows("SELECT score FROM verdicts WHERE judge = 'follows' AND score > 0")
        asked = lake.rows("SELECT source, constraints FROM prompts ORDER BY digest")
    assert scores
    assert all(row["constraints"] for row in asked)
    measured = [row for row in asked if row["source"].startswith("instructions.jsonl:")]
    assert len(measured) == 3
    _, again, _ = quick("run", tmp_path / "lake", capsys, *settings, recipe="rso")
    assert {step["state"] for step in again["steps"]} == {"cached"}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("fields", "judge", "message"),
    [
        (
            {},
            "exact-answer",
            "The judge exact-answer needs the right answers, and no prompt has one",
        ),
        (
            {"answer": []},
            "exact-answer",
            ": `answer` must be the right answer as text or a number, not []",
        ),
        ({"unsafe": 1}, "shorter", ": `unsafe` must be true or false, not 1"),
        (
            {},
            "follows",
            "The judge follows needs prompts with constraints, and no prompt has any: set",
        ),
        (
            {"constraints": [{"rule": "words", "exactly": 0}]},
            "shorter",
            ": the constraint `words`: `exactly` must be greater than or equal to 1, not 0",
        ),
        ({}, "models@77", "Nothing in the lake has the id models@77"),
    ],
)
def test_what_is_wrong_with_prompts_or_names_is_said(
    tmp_path: Path,
    fields: dict[str, Any],
    judge: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = words(prompts(tmp_path / "prompts.jsonl", **fields), f"judge={judge}")
    code, _, err = dapflow(
        "run",
        "rso",
        "--toy",
        "--lake",
        str(tmp_path / "lake"),
        *words(*QUICK),
        *settings,
        capsys=capsys,
    )
    assert code == 2
    assert message in err
    assert not message.startswith(":") or "prompts.jsonl:" in err  # names the line
