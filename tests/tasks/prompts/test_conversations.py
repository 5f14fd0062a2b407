"""Turns are told by the speakers' names; a prompt is one turn of the user's, and what is more has a
reason.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from dapflow.storage import Lake, UserError
from dapflow.tasks.prompts.conversations import transcript, turns_of
from dapflow.tasks.prompts.formats import preference
from dapflow.tasks.prompts.load import prompt_text
from dapflow.tasks.prompts.preferences import (
    PREFERENCES_FILE,
    import_preferences,
    load_preferences,
    part_of,
)
from dapflow.tasks.prompts.sources import Record, find_source
from dapflow.tasks.step import use_lake
from dapflow.tasks.step.progress import Silent, report_to

ASK, YES, NO = ("user", "Is it late?"), ("assistant", "Yes."), ("assistant", "No.")


def row(**fields: Any) -> dict[str, Any]:
    return preference(Record(place="file.jsonl:3", fields=fields))


def messages(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in turns]


def test_a_transcript_is_told_by_its_names() -> None:
    assert transcript("Human: a\n\nHuman: b\n\nAssistant: c") == [
        ("user", "a"),
        ("user", "b"),
        ("assistant", "c"),
    ]
    assert transcript("\n\nHuman: a\n\nAssistant:") == [("user", "a"), ("assistant", "")]
    assert transcript("Is a Human: a person?\n\nAssistant: yes") is None
    assert transcript("Human: nobody answers") is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (None, ""),
        (["a"], "a"),
    ],
)
def test_the_text_of_a_message_may_come_in_parts(content: Any, text: str) -> None:
    assert turns_of([{"role": "user", "content": content}], "prompt", "f:1") == [("user", text)]


@pytest.mark.parametrize(
    "value",
    [[{"role": "user", "content": [{"type": "image"}]}], [{"content": "a"}], ["a"], 3, [None]],
)
def test_what_is_no_message_is_named(value: Any) -> None:
    with pytest.raises(UserError, match=r"f:1: `prompt` must be text or a list of messages"):
        turns_of(value, "prompt", "f:1")


def test_other_names_of_the_speakers() -> None:
    assert turns_of(
        [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "chosen", "f:1"
    ) == [
        ("user", "a"),
        ("assistant", "b"),
    ]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": messages(ASK, YES, ASK), "chosen": "Yes.", "rejected": "No."}, "several_turns"),
        ({"prompt": messages(ASK, ASK), "chosen": "Yes.", "rejected": "No."}, "several_turns"),
        ({"prompt": messages(("system", "Be kind."), ASK), "chosen": messages(YES), "rejected": messages(NO)}, "system_prompt"),
        ({"prompt": messages(("developer", "Be kind."), ASK), "chosen": messages(YES), "rejected": messages(NO)}, "system_prompt"),
        ({"prompt": messages(("system", "Be kind."), ASK), "chosen": messages(ASK, YES), "rejected": messages(ASK, NO)}, "system_prompt"),
        ({"prompt": ASK[1], "chosen": messages(("system", "x"), ASK, YES), "rejected": messages(("system", "x"), ASK, NO)}, "system_prompt"),
        ({"chosen": messages(ASK, YES, ASK, YES), "rejected": messages(ASK, YES, ASK, NO)}, "several_turns"),
        ({"prompt": messages(ASK), "chosen": messages(YES, ASK, YES), "rejected": messages(YES, ASK, NO)}, "several_turns"),
        ({"prompt": "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:", "chosen": "Yes.", "rejected": "No."}, "several_turns"),
        ({"chosen": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c", "rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: d"}, "several_turns"),
        ({"chosen": "Human: a\n\nAssistant: b\n\nAssistant: c", "rejected": "Human: a\n\nAssistant: b\n\nAssistant: d"}, "several_turns"),
        ({"chosen": messages(ASK, YES), "rejected": messages(("user", "other"), NO)}, "different_prompts"),
        ({"prompt": "other", "chosen": messages(ASK, YES), "rejected": messages(ASK, NO)}, "different_prompts"),
        ({"chosen": messages(ASK, YES), "rejected": messages(ASK, YES)}, "identical"),
        ({"chosen": messages(ASK, YES), "rejected": messages(ASK)}, "empty"),
        ({"chosen": messages(ASK, YES), "rejected": messages(ASK, ("assistant", " "))}, "empty"),
        ({"chosen": messages(ASK, YES), "rejected": None}, "empty"),
        ({"chosen": messages(ASK, YES), "rejected": []}, "empty"),
        ({"prompt": messages(ASK), "chosen": messages(YES), "rejected": [{"role": "assistant", "content": None}]}, "empty"),
        ({"prompt": "p", "chosen": None, "rejected": None}, "empty"),
        ({"prompt": None, "chosen": "a", "rejected": "b"}, "empty"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "empty"),
        ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": None}, "empty"),
    ],
)  # fmt: skip
def test_what_is_no_pair_of_one_turn_is_left_out_with_a_reason(
    fields: dict[str, Any], reason: str
) -> None:
    assert row(**fields)["dropped"] == reason
    assert "User:" not in row(**fields)["prompt"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": messages(ASK), "chosen": messages(YES), "rejected": messages(NO)},
        {
            "prompt": messages(("system", ""), ASK),
            "chosen": messages(YES),
            "rejected": messages(NO),
        },
        {"prompt": f"\n\nHuman: {ASK[1]}\n\nAssistant:", "chosen": "Yes.", "rejected": "No."},
        {
            "chosen": f"Human: {ASK[1]}\n\nAssistant: Yes.",
            "rejected": f"Human: {ASK[1]}\n\nAssistant: No.",
        },
        {
            "prompt": ASK[1],
            "chosen": f"Human: {ASK[1]}\n\nAssistant: Yes.",
            "rejected": f"Human: {ASK[1]}\n\nAssistant: No.",
        },
        {
            "conversations": [{"from": "human", "value": ASK[1]}],
            "chosen": {"from": "gpt", "value": "Yes."},
            "rejected": messages(NO),
        },
        {"prompt": None, "chosen": messages(ASK, YES), "rejected": messages(ASK, NO)},
        {
            "prompt": messages(ASK),
            "chosen": {"role": "assistant", "content": "Yes."},
            "rejected": {"from": "gpt", "value": "No."},
        },
    ],
)
def test_one_turn_of_the_user_is_read_in_every_form(fields: dict[str, Any]) -> None:
    found = row(**fields)
    assert [found[name] for name in ("prompt", "chosen", "rejected", "dropped")] == [
        "Is it late?",
        "Yes.",
        "No.",
        None,
    ]


def test_an_answer_that_is_a_dialogue_is_an_answer() -> None:
    dialogue = "Human: Who is there?\n\nAssistant: The wind."
    assert row(prompt="Write a dialogue.", chosen=dialogue, rejected="No.")["chosen"] == dialogue


def test_a_prompt_for_sampling_is_one_turn_or_refused() -> None:
    assert prompt_text(Record(place="f:1", fields={"prompt": messages(ASK)})) == "Is it late?"
    for several in (messages(ASK, YES, ASK), "Human: a\n\nAssistant: b\n\nHuman: c"):
        with pytest.raises(
            UserError,
            match="f:1: this prompt cannot be taken: it is a conversation of several turns",
        ):
            prompt_text(Record(place="f:1", fields={"prompt": several}))


def test_a_file_is_read_less_its_conversations_and_refused_where_nothing_else_is_in_it(
    lake: Lake, tmp_path: Path
) -> None:
    several, alone = (
        "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:",
        "\n\nHuman: a\n\nAssistant:",
    )
    file = tmp_path / "hh.jsonl"
    lines = [
        json.dumps({"chosen": f"{start} yes", "rejected": f"{start} no"})
        for start in (several, several, alone)
    ]
    file.write_text("\n".join(lines))
    rows = lake.rows_of(import_preferences(lake, file))
    assert [row["dropped"] for row in rows] == ["several_turns", "several_turns", None]
    assert json.loads(rows[0]["prompt"]) == messages(
        ("user", "a"), ("assistant", "b"), ("user", "c")
    )
    file.write_text("\n".join(lines[:2]))
    with pytest.raises(
        UserError,
        match=r"hh\.jsonl:1: nothing of hh\.jsonl.*2 as several_turns \(it is a conversation of several turns",
    ):
        import_preferences(lake, file)
    assert len(lake.catalogue().versions) == 1  # nothing of the refused file is left


class Listener(Silent):
    """Keeps what a step says."""

    def __init__(self) -> None:
        self.sentences = list[str]()

    def said(self, sentence: str) -> None:
        self.sentences.append(sentence)


@pytest.mark.usefixtures("prefect_server")
def test_a_step_says_what_it_leaves_out_and_why(lake: Lake, tmp_path: Path) -> None:
    prompts = [f"Question {n}?" for n in range(60)]
    mine = [prompt for prompt in prompts if part_of(prompt) == "reward"]
    file = tmp_path / "pairs.jsonl"
    file.write_text(
        "\n".join(
            json.dumps(
                {
                    "prompt": prompt,
                    "chosen": "a",
                    "rejected": "b",
                    "margin": -1 if prompt == mine[0] else 2,
                }
            )
            for prompt in prompts
        )
    )
    source, listener = find_source(str(file), PREFERENCES_FILE), Listener()
    with use_lake(lake), report_to(listener):
        flow(lambda: load_preferences(source.name, source.digest, "reward"))()
    assert listener.sentences == [
        f"Of {len(mine)} preferences of {file} left out: 1 as contradicted."
    ]
