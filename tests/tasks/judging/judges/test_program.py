"""Programs as judges: the shipped ones, and a user's own function, whose failures are verdicts that
are missing and nothing else.
"""

import re
from pathlib import Path

import pytest

from dapflow.storage import UserError
from dapflow.tasks.judging.judges.base import Match, Question, scores_of
from dapflow.tasks.judging.judges.program import Program, ProgramJudge


def scores(name: str, *completions: str, answer: str | None = None) -> list[float | str | None]:
    """The score of each completion, or why there is none."""
    questions = [
        Question(completion_id=str(n), prompt="How do trams stop?", completion=text, answer=answer)
        for n, text in enumerate(completions)
    ]
    return [
        verdict.score if verdict.outcome == "scored" else verdict.note
        for verdict in scores_of(ProgramJudge(Program.of_word(name)), questions)
    ]


def compared(
    name: str, first: str, second: str, answer: str | None = None
) -> tuple[str, float | None, str | None]:
    """How the first fares against the second, with which probability, and why if not at all."""
    match = Match(
        completion_id="1", other_id="2", prompt="p", first=first, second=second, answer=answer
    )
    [verdict] = ProgramJudge(Program.of_word(name)).compare([match])
    return verdict.outcome, verdict.score, verdict.note


def test_the_shipped_ones_score_what_they_say() -> None:
    assert scores("shorter", "one two", "one") == [-2.0, -1.0]
    assert scores("json", '{"a": [1]}', '{"a": [1}', "  ") == [1.0, 0.0, "empty completion"]
    assert scores("json", '{"a": NaN}', "-Infinity") == [
        0.0,
        0.0,
    ]  # Python reads them, JSON has no such thing
    assert scores(r"regex:^\d+ km$", "12 km", "12 km, about") == [1.0, 0.0]
    assert scores("keywords: brake, Rail,sand", "The BRAKE grips the rail.", "No.") == [
        pytest.approx(2 / 3),
        0.0,
    ]


def test_a_function_of_one_s_own_judges_and_what_it_cannot_is_invalid(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def score(prompt, completion):\n    return {'good': 2, 'nan': float('nan'), 'none': None}[completion]\n"
    )
    found = scores(f"{file}:score", "good", "bad", "nan", "none")
    assert found[:3] == [2.0, "KeyError: 'bad'", "the program's score is nan"]
    assert str(found[3]).startswith("TypeError")
    file.write_text("import sys\n\ndef score(prompt, completion):\n    sys.exit('no more')\n")
    assert scores(f"{file}:score", "good") == ["SystemExit: no more"]
    assert scores("math:fmod", "x")[0] != 0.0


def test_a_changed_function_is_another_judge(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def score(prompt, completion): return 1\n")
    first = Program.of_word(f"{file}:score")
    content = first.content()
    assert [
        verdict.score
        for verdict in ProgramJudge(first).judge(
            [Question(completion_id="1", prompt="p", completion="x")]
        )
    ] == [1.0]
    file.write_text("def score(prompt, completion): return 2\n")
    assert first.content() != content
    assert first.content()["code"] == content["code"]
    assert set(Program(name="shorter").content()) == {"code"}
    assert set(Program(name="regex:a+").content()) == {"code"}
    assert str(first) == "mine.py:score"
    assert str(Program.of_word("regex:" + "a" * 99)) == "regex:" + "a" * 31 + "..."
    assert Program.of_word("math:fmod").source  # a file, although the function is written in C


def test_a_function_of_two_answers_compares_them_in_both_orders(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def longer(prompt, first, second): return 0.5 + 0.5 * ((len(first) > len(second)) - (len(first) < len(second)))\n"
        "def first_place(prompt, first, second): return 1\n"
        "def broken(prompt, first, second): return 2 if first == 'a' else 0.5\n"
        "def nearer(prompt, first, second, answer): return float(abs(int(first) - int(answer)) < abs(int(second) - int(answer)))\n"
        "class Judge:\n    def __call__(self, prompt, completion, strict=True): return 1.0\njudge = Judge()\n"
    )
    assert compared(f"{file}:longer", "aa", "b") == ("win", 1.0, None)
    assert compared(f"{file}:longer", "b", "aa") == ("lose", 0.0, None)
    assert compared(f"{file}:longer", "a", "b") == ("tie", 0.5, None)
    assert compared(f"{file}:first_place", "a", "b") == ("tie", 0.5, None)
    assert compared(f"{file}:broken", "a", "b") == (
        "invalid",
        None,
        "the program's probability is 2",
    )
    assert compared(f"{file}:nearer", "4", "9", answer="5") == ("win", 1.0, None)
    assert compared(f"{file}:nearer", "4", "9") == (
        "invalid",
        None,
        "the prompt has no reference answer",
    )
    assert [
        Program.of_word(f"{file}:{name}").compares for name in ("longer", "nearer", "judge")
    ] == [
        True,
        True,
        False,
    ]
    assert Program.of_word(f"{file}:judge").source == Program.of_word(f"{file}:longer").source


@pytest.mark.parametrize(
    ("completion", "answer", "right"),
    [
        ("Paris", "paris", True),
        ("  **Paris.** ", "Paris", True),
        ("The capital is Paris", "Paris", False),  # it must be the answer, not contain it
        ("France has one capital.\nAnswer: Paris", "Paris", True),
        ("The answer is 12. No: the answer is 13.", "13", True),  # the last one counts
        ("3 + 4 = 7\n#### 1,007.0", "1007", True),
        (r"So \boxed{\$42}", "42", True),
        ("answer: 0.50", "1/2", False),
        ("1,5", "15", False),
        ("The answer is .5", "0.5", True),
        ("$.50.", "5", False),
        ("nan", "NaN", True),
        ("Answer:", "", True),
    ],
)
def test_exact_answer_compares_the_final_answer_by_value(
    completion: str, answer: str, right: bool
) -> None:
    assert scores("exact-answer", completion, answer=answer) == [float(right)]


def test_exact_answer_without_a_reference_is_invalid_not_wrong() -> None:
    assert scores("exact-answer", "Paris") == ["the prompt has no reference answer"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", "There is no judge `nobody`: the programs are exact-answer, json"),
        ("regex:(", "is not a regular expression"),
        ("keywords: ,", "needs words"),
        ("./nowhere.py:score", "There is no file nowhere.py"),
        ("no.such.module:score", "cannot be imported"),
        ("json:nothing", "has no function `nothing`"),
        ("json:loads", "takes s: it must take (prompt, completion) and give a score"),
    ],
)
def test_what_is_no_program_is_said_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Program.of_word(name).check()


def test_a_file_that_does_not_import_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    with pytest.raises(UserError, match=r"broken\.py cannot be imported \(ModuleNotFoundError"):
        Program.of_word(f"{tmp_path / 'broken.py'}:score").check()
