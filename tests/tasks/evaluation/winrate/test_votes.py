"""What a file of judged answers must not mix."""

import json
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import UserError
from dapflow.tasks.evaluation.winrate.comparisons import read_comparisons
from dapflow.tasks.evaluation.winrate.files import Names
from dapflow.tasks.evaluation.winrate.votes import judge_named, names_a_judge


def rows(*preferences: Any, **more: Any) -> list[dict[str, Any]]:
    return [
        {"instruction": f"q{n}", "output": "one", "baseline": "two", "preference": preference}
        | more
        for n, preference in enumerate(preferences)
    ]


def read(tmp_path: Path, found: list[dict[str, Any]], **names: str) -> list[float]:
    (tmp_path / "rows.json").write_text(json.dumps(found))
    return [row.preference for row in read_comparisons(tmp_path / "rows.json", Names(**names)).rows]


@pytest.mark.parametrize(
    ("preferences", "sentence"),
    [
        (
            [1, 2, 0, 1.5],
            "row 2: `preference` is 2.0.*0 or 1.5 a draw, write 0.5 for each draw and subtract 1 from the others",
        ),
        ([0, 1, 2], "halve each instead"),
        ([0.5, -1, 1], "row 2.*add 1 and halve each"),
        ([0, 100, 55], "row 2.*divide each by 100"),
        ([3, 10, 7], "row 1.*0.5 a draw and 1 the output's"),
        ([0.5, 2.5], "row 2.*0.5 a draw and 1 the output's"),
    ],
)
def test_another_scale_is_refused_with_what_makes_it_a_probability(
    tmp_path: Path, preferences: list[float], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read(tmp_path, rows(*preferences))


@pytest.mark.parametrize(
    "column",
    [
        "annotator",
        "judge",
        "Judge Model",
        "annotator_name",
        "model_judge",
        "rater_id",
        "evaluatedBy",
    ],
)
def test_two_judges_are_refused_and_one_is_read(tmp_path: Path, column: str) -> None:
    both = rows(1, 1, 1, **{column: "strict"}) + rows(0, 0, 0, **{column: "mild"})
    with pytest.raises(
        UserError,
        match=rf"votes of 2 judges \(column `{column}`: mild, strict\).*keep the rows of one judge",
    ):
        read(tmp_path, both)
    assert read(tmp_path, both[:3]) == [1, 1, 1]


def test_the_same_answers_judged_in_two_ways_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"rows 1 and 3 judge the same two answers in two ways \(1 and 0\)"
    ):
        read(tmp_path, rows(1, 1) + rows(0))
    assert read(tmp_path, rows(1, 1) + rows(1)) == [1, 1, 1]  # there twice, which the figures say
    assert read(tmp_path, [*rows(1), *rows(0, input="of another thing")]) == [1, 0]


def test_what_is_said_of_a_judge_or_is_a_vote_names_none(tmp_path: Path) -> None:
    assert not any(
        map(
            names_a_judge,
            ("judge_reason", "annotator_comment", "name", "model", "output", "judged"),
        )
    )
    assert [judge_named(value) for value in (0.3, "0.9", 1, "", None, True, [1], "b", 7)] == [
        None
    ] * 7 + ["b", "7"]
    with_votes = [
        row | {"judge": vote} for row, vote in zip(rows(1, 0, 1), (0.2, 0.9, 0.4), strict=True)
    ]
    assert read(tmp_path, with_votes) == [1, 0, 1]


def test_two_columns_of_votes_may_be_of_many_people(tmp_path: Path) -> None:
    both = [
        row | {"second": 1.0, "annotator": name}
        for row, name in zip(rows(1, 0), ("a", "b"), strict=True)
    ]
    assert read(tmp_path, both, preference="preference", second="second") == [1, 0]
