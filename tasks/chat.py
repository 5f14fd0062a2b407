"""A prompt as the model reads it: the tokenizer's chat template, or plain text where there is none.

Test: pytest tests/tasks/test_chat.py
"""

import sys
from typing import Any

from jinja2 import TemplateError

from storage import UserError

_CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length")


def render(tokenizer: Any, prompt: str, system: str | None = None) -> list[int]:
    """Token ids of a single-turn prompt up to where the completion begins, with at most one beginning-of-sequence token.

    Raises UserError when the chat template takes no system prompt.
    """
    if tokenizer.chat_template:
        turns = [{"role": "system", "content": system}] if system is not None else []
        try:
            text = tokenizer.apply_chat_template([*turns, {"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False)
        except TemplateError as error:
            raise UserError(f"The model's chat template refuses the prompt ({error}): leave the system prompt out.") from error
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # the template has placed the special tokens
    text = f"{system}\n{prompt}\n" if system is not None else f"{prompt}\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return [tokenizer.bos_token_id, *ids] if tokenizer.bos_token_id is not None else list(ids)


def context_length(model: Any) -> int:
    """The most tokens, prompt and completion together, that a model was made for; sys.maxsize where its configuration names none.

    model: a model or its configuration.
    """
    config = getattr(model, "config", model).get_text_config()
    return next((int(getattr(config, name)) for name in _CONTEXT_NAMES if hasattr(config, name)), sys.maxsize)
