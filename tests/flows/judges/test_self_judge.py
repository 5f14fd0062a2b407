"""`dapflow run` with the policy as its own judge, through its own engine: used where it judges as
people do, and not where it cannot.
"""

import json
import re
import sys
from pathlib import Path

import pytest

from dapflow.storage import Lake
from tests.helpers import ROOT
from tests.helpers.toy import QUICK, dapflow, quick, words

# A server for the policy that answers prompts at various lengths, and judges by length, as the
# labels of the test do.
SERVER = """
import itertools, sys, time
sys.path.insert(0, {root!r})
from tests.helpers.model_servers import Behaviour, openai_server
turn = itertools.count(1)

def between(text, tag):
    return text.partition("<" + tag + ">")[2].partition("</" + tag + ">")[0]

def reply(prompt):
    if "<response_1>" in prompt:
        return "1" if len(between(prompt, "response_1")) > len(between(prompt, "response_2")) else "2"
    if "<response>" in prompt:
        return "Reason.\\nScore: " + str(min(len(between(prompt, "response").split()), 5))
    return "word " * (next(turn) % 7 + 1)

with openai_server(Behaviour(reply=reply), int(sys.argv[1])):
    time.sleep(600)
"""


def served(tmp_path: Path) -> tuple[str, ...]:
    """Settings for a policy that this server is, and labelled pairs in which the longer answer is
    the better one.
    """
    (tmp_path / "server.py").write_text(SERVER.format(root=str(ROOT)))
    rows = "".join(
        f'{{"prompt": "Say {n}", "chosen": "{"yes " * 4}", "rejected": "no"}}\n' for n in range(120)
    )
    (tmp_path / "pairs.jsonl").write_text(rows)
    serve = f"sampler.serve={sys.executable} {tmp_path / 'server.py'} {{port}}"
    return (
        "sampler.engine=openai",
        "sampler.endpoint.model=policy",
        serve,
        f"preferences.source={tmp_path / 'pairs.jsonl'}",
    )


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("mode", ["pairwise", pytest.param("additive", marks=pytest.mark.slow)])
def test_a_policy_that_judges_as_people_do_labels_its_own_pairs(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = (
        "judge=policy",
        f"judge.mode={mode}",
        "judge.labelled=12",
        "evaluation.judge=shorter",
        *served(tmp_path),
    )
    code, plan, err = quick("plan", tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    command = ("run", "sft-sample-rank", "--iterations", "2", "--toy", "--json")
    where = ("--lake", str(tmp_path / "lake"))
    code, out, err = dapflow(*command, *where, *words(*QUICK, *settings), capsys=capsys)
    assert code == 0, err
    result = json.loads(out.splitlines()[-1])
    one, two = result["iterations"]
    judge = one["judges"]["training"]
    assert (judge["used"], judge["accuracy"], judge["decided"], judge["unread"]) == (
        True,
        1.0,
        1.0,
        0.0,
    )
    assert (judge["exact_match"], judge["spearman"]) == (1.0, pytest.approx(1.0))
    assert one["pairs"] > 0
    assert one["judges"].keys() == {"training", "evaluation"}
    names = [step["name"] for step in plan["steps"]]
    assert [step["name"] for step in result["steps"]][: len(names) // 2] == names[: len(names) // 2]
    with Lake(tmp_path / "lake", read_only=True) as lake:
        pairs = lake.rows(
            "SELECT chosen, rejected FROM pairs WHERE dropped IS NULL AND chosen_id IS NOT NULL"
        )
    assert pairs
    assert all(len(pair["chosen"]) > len(pair["rejected"]) for pair in pairs)
    first, second = (each["judges"]["training"] for each in (one, two))
    assert ("change" in first, second["change"]) == (False, 0.0)
    assert second["change_low"] < 0 < second["change_high"]
    said = " ".join(err.split())
    assert re.search(
        r"agrees with people \+0 points \[.*\] more than an iteration before: it has not improved beyond doubt",
        said,
    ), err


@pytest.mark.usefixtures("prefect_server")
def test_a_policy_that_cannot_judge_is_not_used_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = words("judge=policy", "judge.labelled=4", "judge.max_tokens=8")
    command = ("run", "rso", "--toy", "--lake", str(tmp_path / "lake"), *words(*QUICK), *settings)
    code, out, err = dapflow(*command, "--iterations", "2", capsys=capsys)
    assert code == 0, err
    said = " ".join(out.split())
    assert (
        "is not used as its own judge, since it decides 0% of the labelled pairs (100% cannot be read): reward-model judges instead."
        in said
    )
    assert "self judge not" in said
    assert (
        "Whether the policy has become a better judge cannot be told: it decides no labelled pair now."
        in said
    )
    code, _, err = dapflow(*command, "--set", "judge.fallback=stop", capsys=capsys)
    assert code == 2
    assert (
        "is not used as its own judge, since it decides 0% of the labelled pairs (100% cannot be read): train it to judge, take another judge"
        in err
    )


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_self_rewarding_learns_to_judge_before_it_judges_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every judgement of this policy agrees with people, and its scores are 1 and 4, so none is
    thinned out.
    """
    settings = (
        "judge.labelled=12",
        "prompts.schedule=next",
        "judgements.prompts=5",
        "evaluation.judge=shorter",
        *served(tmp_path),
    )
    lake, given = tmp_path / "lake", words(*QUICK, *settings)
    code, out, err = dapflow(
        "run",
        "self-rewarding",
        "--iterations",
        "2",
        "--toy",
        "--json",
        "--lake",
        str(lake),
        *given,
        capsys=capsys,
    )
    assert code == 0, err
    one, two = json.loads(out.splitlines()[-1])["iterations"]
    assert two["judges"]["training"]["used"]
    with Lake(lake, read_only=True) as opened:
        told = [{row["name"]: row["value"] for row in found["metrics"]} for found in (one, two)]
        chain = [two["policy"]]
        while parent := opened.rows("SELECT parent FROM models WHERE version = ?", [chain[-1]])[0][
            "parent"
        ]:
            chain.append(parent)
        learned = [
            opened.rows(
                "SELECT p.* FROM pairs p JOIN edges e ON e.parent = p.version WHERE e.child = ? AND p.dropped IS NULL",
                [model],
            )
            for model in chain[:3]
        ]
    assert len(chain) == 4  # the initial policy, taught to answer, taught to judge, DPO
    own, judging, answering = learned
    assert {row["rejected"] for row in answering} == {None} and {
        row["chosen"] for row in answering
    } == {"yes " * 4}
    assert len(judging) == 10 and {row["chosen"][-8:] for row in judging} == {
        "Score: 1",
        "Score: 4",
    }
    assert own and None not in {row["rejected"] for row in own}
    assert told[0]["people_prompts"] == len(answering)  # not also the questions to the judge
    assert told[0]["people_share"] == pytest.approx(len(answering) / (len(answering) + 10))
    assert (told[1]["people_share"], told[1]["own_share"], told[1]["renewed_share"]) == (
        0.0,
        1.0,
        1.0,
    )
