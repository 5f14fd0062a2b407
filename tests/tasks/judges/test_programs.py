"""Programs as judges: the shipped ones, and a user's own function, whose failures are verdicts that are missing and nothing else."""

from pathlib import Path

import pytest

from storage import UserError
from tasks.judges.base import Question
from tasks.judges.programs import ProgramJudge, pinned


def scores(name: str, *completions: str) -> list[float | str | None]:
    """The score of each completion, or why there is none."""
    questions = [Question(completion_id=str(n), prompt="How do trams stop?", completion=text) for n, text in enumerate(completions)]
    return [verdict.score if verdict.outcome == "scored" else verdict.note for verdict in ProgramJudge(name).judge(questions)]


def test_the_shipped_ones_score_what_they_say() -> None:
    assert scores("shorter", "one two", "one") == [-2.0, -1.0]
    assert scores("json", '{"a": [1]}', '{"a": [1}', "  ") == [1.0, 0.0, "empty completion"]
    assert scores(r"regex:^\d+ km$", "12 km", "12 km, about") == [1.0, 0.0]
    assert scores("keywords: brake, Rail,sand", "The BRAKE grips the rail.", "No.") == [pytest.approx(2 / 3), 0.0]


def test_a_function_of_one_s_own_judges_and_what_it_cannot_is_invalid(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompt, completion):\n    return {'good': 2, 'nan': float('nan'), 'none': None}[completion]\n")
    found = scores(f"{file}:score", "good", "bad", "nan", "none")
    assert found[:3] == [2.0, "KeyError: 'bad'", "the program's score is nan"]
    assert str(found[3]).startswith("TypeError")
    assert scores("math:fmod", "x")[0] != 0.0


def test_a_changed_function_is_another_judge(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompt, completion): return 1\n")
    first = pinned(f"{file}:score")
    assert first == pinned(f"{file}:score")
    assert scores(first, "x") == [1.0]
    file.write_text("def score(prompt, completion): return 2\n")
    assert pinned(f"{file}:score") != first
    assert pinned("shorter") == "shorter"
    assert pinned("regex:a+") == "regex:a+"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "There is no judge `nobody`: the programs are json"),
        ("regex:(", "is not a regular expression"),
        ("keywords: ,", "needs words"),
        ("./nowhere.py:score", "There is no file nowhere.py"),
        ("no.such.module:score", "cannot be imported"),
        ("json:nothing", "has no function `nothing`"),
    ],
)
def test_what_is_no_program_is_said_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        pinned(name)


def test_a_file_that_does_not_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(UserError, match=r"broken\.py cannot be imported \(ModuleNotFoundError"):
        pinned(f"{tmp_path / 'broken.py'}:score")
