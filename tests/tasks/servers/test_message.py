"""What a model thought is not what it answered, in whatever way a server tells the two apart."""

from typing import Any

import pytest

from dapflow.tasks.servers.message import Message, message_of, split_thought


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("No thought, 1 < 2.", "", "No thought, 1 < 2."),
        ("<think>Is it 1?</think>\n\n2", "Is it 1?", "2"),
        ("<think>\n\n</think>\n\n2", "", "2"),
        ("Is it 1?\n</think>\n2", "Is it 1?", "2"),  # the chat template wrote the opening tag
        ("<think>Is it 1? Let me", "Is it 1? Let me", ""),  # cut off
        ("Well. <think>Is it 1?</think> It is 2.", "Is it 1?", "Well.  It is 2."),
        ("<THINKING>1</THINKING>2<think>3</think>", "1\n3", "2"),
        ("[THINK]1[/THINK]2", "1", "2"),
        (
            "<|channel|>analysis<|message|>1<|end|><|start|>assistant<|channel|>final<|message|>2<|return|>",
            "1",
            "2",
        ),
        ("<|channel|>analysis<|message|>Is it 1? Let", "Is it 1? Let", ""),
        ("The word <thinker> is no tag.", "", "The word <thinker> is no tag."),
    ],
)
def test_a_thought_is_taken_off_whether_it_ends_or_not(
    text: str, thought: str, answer: str
) -> None:
    assert split_thought(text) == (thought, answer)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"content": "2"}, Message(answer="2")),
        ({"content": None}, Message(answer=None)),
        ({}, Message(answer=None)),
        (
            {"content": "2", "reasoning_content": "Is it 1?"},
            Message(answer="2", thought="Is it 1?"),
        ),
        ({"content": None, "reasoning": "Is it 1?"}, Message(answer=None, thought="Is it 1?")),
        (
            {"content": [{"type": "text", "text": "It is "}, {"type": "text", "text": "2"}]},
            Message(answer="It is 2"),
        ),
        (
            {"content": [{"type": "thinking", "thinking": "1?"}, {"type": "text", "text": "2"}]},
            Message(answer="2", thought="1?"),
        ),
        ({"content": [{"type": "reasoning", "text": "1?"}]}, Message(answer=None)),
        ({"content": "<think>1?</think>2", "reasoning": ""}, Message(answer="2", thought="1?")),
    ],
)
def test_a_message_is_read_in_the_forms_that_servers_give(
    message: dict[str, Any], expected: Message
) -> None:
    assert message_of(message) == expected


@pytest.mark.parametrize("content", [3, True, [3]])
def test_what_is_no_message_is_not_taken_for_one(content: Any) -> None:
    with pytest.raises(TypeError):
        message_of({"content": content})
