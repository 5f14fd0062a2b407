"""Completions of a policy that thinks before it answers: recognised, and spoken of, since thoughts
are neither judged nor learned yet.

Test: pytest tests/tasks/sampling/engines/test_thoughts.py
"""

from collections.abc import Iterable
from dataclasses import dataclass

from dapflow.tasks.sampling.engines.base import Completion
from dapflow.tasks.servers.message import split_thought

ALL_THOUGHT = "its thought took all tokens that sampling.max_tokens allows: allow more"
NO_ANSWER = "a thought, and no answer after it"
_LEFT_OUT = "a thought of"
NOTES = (
    ALL_THOUGHT,
    NO_ANSWER,
    _LEFT_OUT,
)  # how the note of a completion begins whose thought its text does not hold


def left_out(thought: str) -> str:
    """The note of a completion whose thought its text does not hold."""
    return f"{_LEFT_OUT} {len(thought):,} characters is left out"


@dataclass(kw_only=True)
class Thoughts:
    """So many completions whose thought was left out, and so many whose text holds one."""

    apart: int = 0
    inside: int = 0

    def count(self, completions: Iterable[Completion]) -> None:
        """Add those that there are in these."""
        for completion in completions:
            self.apart += (completion.note or "").startswith(NOTES)
            self.inside += split_thought(completion.text)[1] != completion.text

    def warning(self) -> str | None:
        """What a user is told whose policy thinks; None where no completion holds a thought."""
        told = (
            [
                f"{self.apart:,} completions came with a thought, which is left out: only the "
                "answer is judged and learned"
            ]
            if self.apart
            else []
        )
        if self.inside:
            told.append(
                f"{self.inside:,} completions hold a thought (<think> or the like) in their text: "
                "it is judged, measured and learned as if "
                "it were the answer; switch thinking off (sampling.chat_template, "
                "sampling.system), or take a policy that does not think"
            )
        return f"The policy thinks before it answers. {'; '.join(told)}." if told else None
