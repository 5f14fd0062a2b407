"""Prompts as token ids. Run: pytest tests/tasks/models/test_chat.py"""

import sys
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BloomConfig, GPT2Config, LlamaConfig, MptConfig, PreTrainedTokenizerFast

from dapflow.storage import UserError
from dapflow.tasks.models.chat import context_length, render, transcript

WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "<user>",
    "<system>",
    "<assistant>",
    "<bot>",
    "hello",
    "world",
    "be",
    "kind",
]
BOS, USER, SYSTEM, ASSISTANT, BOT, HELLO, WORLD, BE, KIND = (
    WORDS.index(word)
    for word in (
        "<s>",
        "<user>",
        "<system>",
        "<assistant>",
        "<bot>",
        "hello",
        "world",
        "be",
        "kind",
    )
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}<bot>{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + TEMPLATE
)


def words(template: str | None = None, bos: str | None = "<s>") -> Any:
    """A tokenizer of whole words that, like many, puts a beginning-of-sequence token before
    whatever it encodes.
    """
    core = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    core.add_special_tokens(["<s>", "</s>", "<user>", "<system>", "<assistant>", "<bot>"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def test_the_template_places_the_only_beginning_of_sequence_token() -> None:
    assert render(words(TEMPLATE), "hello world") == [BOS, USER, HELLO, WORLD, BOT]


def test_a_system_prompt_comes_first() -> None:
    assert render(words(TEMPLATE), "hello", "be kind") == [BOS, SYSTEM, BE, KIND, USER, HELLO, BOT]


def test_the_turns_before_a_prompt_stand_before_it() -> None:
    turns = ["hello", "world"]
    assert render(words(TEMPLATE), "be kind", earlier=turns) == [
        BOS,
        USER,
        HELLO,
        ASSISTANT,
        WORLD,
        USER,
        BE,
        KIND,
        BOT,
    ]
    assert render(words(), "be kind", earlier=turns) == [BOS, HELLO, WORLD, BE, KIND]  # plain text
    assert transcript("be kind", turns) == "User: hello\n\nAssistant: world\n\nUser: be kind"
    assert transcript("be kind") == "be kind"


def test_without_a_template_the_prompt_is_plain_text_after_one_beginning_of_sequence_token() -> (
    None
):
    assert render(words(), "hello world") == [BOS, HELLO, WORLD]
    assert render(words(), "hello", "be kind") == [BOS, BE, KIND, HELLO]


def test_a_tokenizer_without_a_beginning_of_sequence_token_gets_none() -> None:
    assert render(words(bos=None), "hello") == [HELLO]


def test_a_template_that_takes_no_system_prompt_says_so() -> None:
    assert render(words(NO_SYSTEM), "hello") == [BOS, USER, HELLO, BOT]
    with pytest.raises(UserError, match=r"System role not supported.*leave the system prompt out"):
        render(words(NO_SYSTEM), "hello", "be kind")


def test_prompt_and_completion_are_encoded_apart_so_no_token_crosses_their_boundary() -> None:
    tokenizer = words(TEMPLATE)
    ids = render(tokenizer, "hello")
    completion = tokenizer("world", add_special_tokens=False)["input_ids"]
    assert BOS not in completion
    assert [*ids, *completion][: len(ids)] == render(tokenizer, "hello")


@pytest.mark.parametrize(
    ("config", "length"),
    [
        (LlamaConfig(max_position_embeddings=77), 77),
        (GPT2Config(n_positions=55), 55),
        (MptConfig(max_seq_len=33), 33),
    ],
)
def test_the_context_is_what_the_configuration_says(config: Any, length: int) -> None:
    assert context_length(config) == length


def test_a_model_with_slopes_for_positions_has_no_end_of_context() -> None:
    assert context_length(BloomConfig()) == sys.maxsize
