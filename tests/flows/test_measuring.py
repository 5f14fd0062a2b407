"""What a run says about its policy: all figures by name, other baselines, judges that are one,
prompts that training knows.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import Lake
from dapflow.tasks.metrics import METRICS, base_name
from dapflow.tasks.prompts.load import PROMPTS_FILE, split_prompts
from dapflow.tasks.prompts.sources import read_source
from tests.helpers.toy import BY_LENGTH, SMALL, dapflow, words


def run(
    lake: Path, capsys: pytest.CaptureFixture[str], *settings: str, recipe: str = "rso"
) -> tuple[int, dict[str, Any], str]:
    code, out, err = dapflow(
        "run",
        recipe,
        "--toy",
        "--json",
        "--lake",
        str(lake),
        *words(*SMALL, *settings),
        capsys=capsys,
    )
    return code, json.loads(out.splitlines()[-1])["iterations"][-1] if code == 0 else {}, err


@pytest.mark.usefixtures("prefect_server")
def test_every_figure_has_a_value_or_a_reason_and_the_policy_meets_every_baseline(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Path(shutil.copytree(finished[0], tmp_path / "lake"))
    [first] = finished[1]["iterations"]
    figures = {row["name"]: row for row in first["metrics"]}
    others = {
        "position_consistency",
        "first_place_wins",
        *(name for name in METRICS if name.startswith("turn_")),
    }  # it compares nothing
    assert {base_name(name) for name in figures} == METRICS.keys() - others
    assert all(row["value"] is not None or row["note"] for row in figures.values())
    assert all(
        row["low"] <= row["value"] <= row["high"]
        for row in figures.values()
        if row["low"] is not None
    )
    assert figures["win_rate_vs_initial"] == figures["win_rate"] | {
        "name": "win_rate_vs_initial"
    }  # the first iteration's previous policy
    assert figures["same_judge"]["value"] == 0.0
    assert (
        figures["exact_answers_change"]["low"] < 0 < figures["exact_answers_change"]["high"]
    )  # the toy solves none: 40 tasks are not all
    held_out = split_prompts(read_source("shipped", PROMPTS_FILE), 6)["held_out"]
    file = tmp_path / "theirs.jsonl"
    file.write_text(
        "\n".join(
            json.dumps({"prompt": record.text("prompt"), "answer": "No."})
            for record in held_out[:4]
        )
    )
    code, second, err = run(
        lake,
        capsys,
        f"evaluation.baselines=[{first['policy']}, {file}]",
        "evaluation.probes=0",
        "evaluation.exact.source=",
        "evaluation.instructions.prompts=0",
    )
    assert code == 0, err
    names = {row["name"]: row for row in second["metrics"]}
    assert names[f"win_rate_vs_{first['policy']}"]["value"] == 0.5  # itself
    assert names[f"judged_prompts_vs_{file}"]["value"] <= 4
    unmeasured = {"kl_to_initial", "displaced_pairs", "exact_answers_after"}
    assert not (unmeasured | {"instructions_followed_after"}) & names.keys()
    with Lake(lake, read_only=True) as opened:
        notes = opened.rows(
            "SELECT DISTINCT note FROM completions WHERE policy = ? AND finish_reason = 'refused'",
            [str(file)],
        )
        assert notes == [{"note": f"{file} has no answer"}]


@pytest.mark.usefixtures("prefect_server")
def test_a_judge_that_measures_what_it_has_taught_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, one, err = run(tmp_path, capsys, *BY_LENGTH, recipe="sft-sample-rank")
    assert code == 0, err
    [row] = [row for row in one["metrics"] if row["name"] == "same_judge"]
    assert row["value"] == 1.0
    assert "it finds what it has taught" in row["note"]


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "words_in_common",
    [
        pytest.param("", marks=pytest.mark.slow),
        "and has asked for a week or more and nobody could say, ",
    ],
)
def test_held_out_prompts_that_training_knows_are_left_out_and_counted(
    words_in_common: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = (
        "rivers",
        "bread",
        "chess",
        "clouds",
        "bees",
        "glass",
        "wool",
        "trains",
        "salt",
        "maps",
        "drums",
        "ice",
    )
    prompts = [
        f"Tell me what a curious child would like to know {words_in_common}about {topic}{mark}"
        for topic in topics
        for mark in (".", "!")
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    settings = (*BY_LENGTH, f"prompts.source={file}", "prompts.per_iteration=18")
    code, one, err = run(tmp_path / "lake", capsys, *settings)
    assert code == 0, err
    figures = {row["name"]: row for row in one["metrics"]}
    left_out = figures["contaminated_prompts"]["value"]
    assert left_out == 6 if words_in_common else left_out > 0
    assert figures["judged_prompts"]["value"] <= 6 - left_out
    assert len(one["examples"]) <= 6 - left_out
    if (
        left_out == 6
    ):  # where all six have their like in training, there is nothing left to measure, and that is why
        notes = {
            figures[name]["note"]
            for name in (
                "win_rate",
                "win_rate_gap",
                "reward_after",
                "judge_reward_gain",
                "length_after",
                "invalid_rate",
            )
        }
        assert notes == {
            "all 6 held-out prompts were left out, for they repeat training prompts: hold out others"
        }


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "evaluation.baselines=[promoted]",
            "no policy that comes from this recipe's has been promoted in this lake",
        ),
        ("evaluation.baselines=[nobody.jsonl]", "There is no file nobody.jsonl"),
        ("evaluation.baselines=[abcdef]", "abcdef"),
    ],
)
def test_a_baseline_that_is_not_there_is_one_sentence(
    setting: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(tmp_path, capsys, *BY_LENGTH, setting)
    assert code == 2
    assert message in err and "Traceback" not in err
