"""A prompt as the model reads it: the tokenizer's chat template, or plain text where there is none.

Test: pytest tests/tasks/models/test_chat.py
"""

import sys
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from dapflow.storage import UserError

Turn = dict[str, str]
"""{"role": "user" or "assistant", "content": ...}"""

_CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length")


def render(
    tokenizer: Any,
    prompt: str,
    system: str | None = None,
    template: str | None = None,
    earlier: Sequence[str] = (),
) -> list[int]:
    """Token ids of a prompt up to where the completion begins, with at most one
    beginning-of-sequence token.

    template: Jinja text in place of the tokenizer's own; empty for plain text. earlier: the turns
    before the prompt. Raises UserError when it takes no system prompt.
    """
    return render_turns(tokenizer, turns_of(prompt, earlier), system, template)


def turns_of(prompt: str, earlier: Sequence[str] = ()) -> list[Turn]:
    """A conversation that ends with a prompt. earlier: what was said before it, by the user first
    and then by turns.
    """
    assert len(earlier) % 2 == 0, "before the user's turn there is an answer"
    return [
        {"role": ("user", "assistant")[place % 2], "content": said}
        for place, said in enumerate((*earlier, prompt))
    ]


def transcript(prompt: str, earlier: Sequence[str] = ()) -> str:
    """The same as a text, for a reader who is shown no chat; a prompt alone stays as it is."""
    if not earlier:
        return prompt
    return "\n\n".join(
        f"{turn['role'].capitalize()}: {turn['content']}" for turn in turns_of(prompt, earlier)
    )


def render_turns(
    tokenizer: Any, turns: Sequence[Turn], system: str | None = None, template: str | None = None
) -> list[int]:
    """The same for a conversation, whose last turn is the user's."""
    template = tokenizer.chat_template if template is None else template
    if template:
        turns = [*([{"role": "system", "content": system}] if system is not None else []), *turns]
        try:
            text = tokenizer.apply_chat_template(
                turns, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            without = (
                "leave the system prompt out (set sampling.system and evaluation.sampling.system "
                "to null), or "
            )
            remedy = f"{without if system is not None else ''}mend the template"
            raise UserError(f"The chat template refuses the prompt ({error}): {remedy}.") from error
        return list(
            tokenizer(text, add_special_tokens=False)["input_ids"]
        )  # the template has placed the special tokens
    text = "".join(
        f"{said}\n"
        for said in (
            *([system] if system is not None else []),
            *(turn["content"] for turn in turns),
        )
    )
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.bos_token_id, *ids] if tokenizer.bos_token_id is not None else list(ids)


def context_length(model: Any) -> int:
    """The most tokens, prompt and completion together, that a model was made for; sys.maxsize where
    its configuration names none.

    model: a model or its configuration.
    """
    config = getattr(model, "config", model).get_text_config()
    return next(
        (int(getattr(config, name)) for name in _CONTEXT_NAMES if hasattr(config, name)),
        sys.maxsize,
    )
