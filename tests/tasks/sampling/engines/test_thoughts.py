"""A policy that thinks before it answers is spoken of, whichever engine asks it, since thoughts are
neither judged nor learned yet.
"""

from pathlib import Path

from dapflow.storage import Lake
from dapflow.tasks.sampling.engines.base import Completion
from dapflow.tasks.sampling.engines.thoughts import ALL_THOUGHT, Thoughts, left_out
from dapflow.tasks.servers.message import MARKS


def completion(text: str, note: str | None = None) -> Completion:
    return Completion(
        prompt_id="p",
        sample=0,
        text=text,
        token_ids=[1],
        logprobs=[-1.0],
        finish_reason="stop",
        note=note,
    )


def counted(*completions: Completion) -> Thoughts:
    thoughts = Thoughts()
    thoughts.count(completions)
    return thoughts


def test_completions_without_thoughts_are_nothing_to_speak_of() -> None:
    thoughts = counted(
        completion("So."),
        completion("", "prompt of 9 tokens does not fit"),
        completion("1 < 2 and <b>bold</b>"),
    )
    assert thoughts == Thoughts()
    assert thoughts.warning() is None


def test_a_thought_in_the_text_of_a_local_engine_is_warned_of_and_so_is_one_that_was_cut() -> None:
    thoughts = counted(
        completion("<think>Is it?</think>So."),
        completion("<think>Is"),
        completion("Is it?\n</think>\nSo."),
        completion("So."),
    )
    assert thoughts == Thoughts(inside=3)
    assert "3 completions hold a thought" in str(thoughts.warning())
    assert "judged, measured and learned as if it were the answer" in str(thoughts.warning())


def test_a_thought_that_a_server_told_apart_is_left_out_and_that_is_told() -> None:
    thoughts = counted(completion("So.", left_out("Is it?")), completion("", ALL_THOUGHT))
    assert thoughts == Thoughts(apart=2)
    assert "2 completions came with a thought, which is left out" in str(thoughts.warning())


def test_the_report_s_query_knows_the_same_marks(tmp_path: Path) -> None:
    texts = [
        "<think>Is it?</think>So.",
        "Is it?\n</think>So.",
        "[THINK]1[/THINK]2",
        "<THOUGHT>",
        "<|channel|>final<|message|>So.",
        "So <thinker>",
        "",
    ]
    with Lake(tmp_path) as lake:
        rows = lake.rows(
            "SELECT regexp_matches(text, ?) AS marked FROM (SELECT unnest(?) AS text)",
            [MARKS, texts],
        )
    assert [row["marked"] for row in rows] == [True, True, True, True, True, False, False]
