"""Seed data of Self-Rewarding: people's first, and only judgements that say what people said, the
commonest score thinned.
"""

from typing import Any

import pyarrow as pa
import pytest
from prefect import flow

from dapflow.storage import DatasetRef, Lake, UserError
from dapflow.storage.lineage import trace
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.pairing.self_rewarding import (
    EvaluationData,
    agreeing_judgements,
    evaluation_data,
    instruction_data,
    judge_questions,
    ranked,
)
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.step import use_lake
from tests.helpers.lakes import ids, named, write

PAIRS = [
    ("sea", "B", "C"),
    ("sea", "A", "B"),
    ("sea", "A", "C"),
    ("sky", "X", "Y"),
    ("sky", "Y", "X"),
    ("tie", "P", "Q"),
    ("sun", "S", "T"),
]


def preferences(lake: Lake, pairs: list[tuple[str, str, str]] = PAIRS) -> DatasetRef:
    version = named("preferences")
    columns = dict(
        zip(("prompt", "chosen", "rejected"), map(list, zip(*pairs, strict=True)), strict=True)
    )
    dropped = pa.array(["tie" if pair[0] == "tie" else None for pair in pairs], pa.string())
    rows = pa.table({"id": ids(version, len(pairs)), **columns, "dropped": dropped})
    return write(lake, "pairs", version, "load_preferences", rows, {})  # type: ignore[return-value]


def judgements(
    lake: Lake, questions: DatasetRef, said: list[list[str]], cut: tuple[int, ...] = ()
) -> DatasetRef:
    """Completions: for each question what each judge said; those at the places `cut` were cut off."""
    version = named("judgements")
    n, asked = len(said[0]), [row["id"] for row in lake.rows_of(questions)]
    texts = [text for one in said for text in one]
    rows = pa.table(
        {
            "id": ids(version, len(texts)), "prompt_id": [asked[place // n] for place in range(len(texts))],
            "sample": pa.array([place % n for place in range(len(texts))], pa.int32()), "text": texts,
            "finish_reason": ["length" if place in cut else "stop" for place in range(len(texts))],
        }
    )  # fmt: skip
    return write(lake, "completions", version, "sample", rows, {"prompts": questions})  # type: ignore[return-value]


def score(value: object) -> str:
    return f"It answers.\nScore: {value}"


def test_people_rank_by_their_pairs_and_ties_say_nothing() -> None:
    rows = [dict(zip(("prompt", "chosen", "rejected"), pair, strict=True)) for pair in PAIRS]
    found = ranked(
        [
            row | {"id": str(n), "dropped": "tie" if row["prompt"] == "tie" else None}
            for n, row in enumerate(rows)
        ]
    )
    assert [(one.prompt, one.answers, one.sources) for one in found] == [
        ("sea", ["B", "C", "A"], ["0", "0", "1"]),
        ("sky", ["X", "Y"], ["3", "3"]),
        ("sun", ["S", "T"], ["6", "6"]),
    ]
    assert [one.first for one in found] == [2, None, 0]
    sea, sky, _ = found
    assert sea.agrees([3, 1, 5])
    assert not sea.agrees([3, 1, 3])  # A as good as B: people say better
    assert not sky.agrees([1, 0]) and not sky.agrees([0, 1])  # people contradict one another


@pytest.mark.usefixtures("prefect_server")
def test_instruction_data_is_what_people_rank_first(lake: Lake) -> None:
    with use_lake(lake):
        ref = flow(lambda: instruction_data(preferences(lake)))()
    assert [
        [row[name] for name in ("prompt", "chosen", "rejected", "dropped")]
        for row in lake.rows_of(ref)
    ] == [
        ["sea", "A", None, None],
        ["sky", "X", None, "contradictory"],
        ["sun", "S", None, None],
    ]


def selected(
    lake: Lake, said: list[list[str]], cut: tuple[int, ...] = (), thin: bool = False
) -> list[dict[str, Any]]:
    @flow
    def select() -> DatasetRef:
        people = preferences(lake)
        questions = judge_questions(people, "{prompt}? {completion}", 9)
        return agreeing_judgements(
            people, questions, judgements(lake, questions, said, cut), len(said[0]), thin, 0
        )

    with use_lake(lake):
        return lake.rows_of(select())


@pytest.mark.usefixtures("prefect_server")
def test_the_first_judge_who_agrees_with_people_is_kept(lake: Lake) -> None:
    # three judges go over sea (B, C, A), sky (X, Y) and sun (S, T)
    sea = [
        [score(1), score(3), score(4)],
        [score(2), score(1), score(0)],
        [score(3), score(5), score(5)],
    ]
    sky = [[score(4), score(1), score(2)], [score(1), score(2), score(2)]]
    sun = [["No idea.", score("7"), score(2)], [score(1), score(1), score(1)]]
    rows = selected(lake, sea + sky + sun, cut=(20,))
    place = {
        question: n
        for n, question in enumerate(
            ["sea? B", "sea? C", "sea? A", "sky? X", "sky? Y", "sun? S", "sun? T"]
        )
    }
    found = {
        (row["prompt"], int(row["chosen_id"][-8:]) - 3 * place[row["prompt"]]): row["dropped"]
        for row in rows
    }
    assert found == {
        # judge 0: B 1, C 2 is not people's order; judge 1: A 5, B 3, C 1 is; judge 2 comes too late
        **{(f"sea? {answer}", 0): "disagrees" for answer in "ABC"},
        **{(f"sea? {answer}", 1): None for answer in "ABC"},
        **{(f"sea? {answer}", 2): "redundant" for answer in "ABC"},
        **{(f"sky? {answer}", judge): "disagrees" for answer in "XY" for judge in range(3)},
        ("sun? S", 0): "invalid",
        ("sun? S", 1): "invalid",
        ("sun? S", 2): "incomplete",
        ("sun? T", 0): "incomplete",
        ("sun? T", 1): "incomplete",
        ("sun? T", 2): "truncated",
    }
    assert all(row["rejected"] is None and row["chosen"] for row in rows)
    node = trace(lake, rows[3]["id"])
    assert {one.role for one in node.up} == {"chosen", "prompt", "source"}


@pytest.mark.usefixtures("prefect_server")
def test_the_commonest_score_is_thinned_to_the_second_commonest(lake: Lake) -> None:
    pairs = [PAIRS[1], ("sun", "S", "T"), ("one", "K", "L"), ("two", "M", "N")]

    @flow
    def select(seed: int) -> DatasetRef:
        people = preferences(lake, pairs)
        questions = judge_questions(people, "{prompt}? {completion}", 9)
        said = [[score(value)] for value in (4, 1, 4, 1, 4, 2, 4, 3)]
        return agreeing_judgements(
            people, questions, judgements(lake, questions, said), 1, True, seed
        )

    with use_lake(lake):
        found = [lake.rows_of(select(seed)) for seed in (0, 1, 2, 3)]
    for rows in found:  # 4: four times, 1: twice, so two of the four go
        assert sum(row["dropped"] == "common_score" for row in rows) == 2
        assert all(row["chosen"].endswith("4") for row in rows if row["dropped"] is not None)
        assert {row["dropped"] for row in rows} == {None, "common_score"}
    assert len({tuple(row["dropped"] for row in rows) for rows in found}) > 1


@pytest.mark.usefixtures("prefect_server")
def test_a_policy_that_gives_no_score_gives_nothing_to_learn_from(lake: Lake) -> None:
    settings = EvaluationData(sampling=Sampling(n=2, max_tokens=6))

    @flow
    def made(settings: EvaluationData) -> DatasetRef:
        return evaluation_data(
            register_model("toy", resolve("toy").digest), preferences(lake), settings, 0, Sampler()
        )

    with use_lake(lake):
        rows = lake.rows_of(made(settings))
        with pytest.raises(UserError, match="places for"):
            made(EvaluationData(template="pairwise-v1"))
        fewer = lake.rows_of(made(settings.model_copy(update={"prompts": 2})))
    assert len(rows) == 14  # seven answers, two judges
    assert [row["prompt"] for row in fewer] == [
        row["prompt"] for row in rows[:10]
    ]  # those of the first two prompts
    assert {row["dropped"] for row in rows} <= {"invalid", "incomplete", "truncated", "refused"}
