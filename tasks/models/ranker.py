"""A pairwise ranker at work: a language model that reads a prompt and two answers, and names the
better one (RSO's rho, arXiv 2309.06657, 3.2).

    rho(x, y1, y2) = P("A") / (P("A") + P("B")) of its next token, averaged over both orders of the answers
Trained by tasks/training/reward/ranker.py. Test: pytest tests/tasks/training/reward/test_ranker.py
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.names import Loaded, load
from dapflow.tasks.models.packed.batches import Group, microbatches
from dapflow.tasks.models.packed.lengths import lengths, why_unread
from dapflow.tasks.models.packed.logps import pick_scorer, sequence_logps

TEMPLATE = Path(__file__).with_name("ranker-v1.txt")
_MARKERS = re.compile(r"\[(CONTEXT|RESPONSE A|RESPONSE B|BETTER RESPONSE)\]")


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt. `row_id` names where it came from; certain: the probability that the
    first is better, None for 1.
    """

    prompt: str
    first: str
    second: str
    row_id: str
    certain: float | None = None


@dataclass(frozen=True, kw_only=True)
class Preference:
    """P(the first answer is better), asked as it stands and with the answers swapped; both are of
    the same event.
    """

    forward: float
    backward: float

    @property
    def probability(self) -> float:
        """The mean: what is left when a preference for a place cancels out."""
        return (self.forward + self.backward) / 2

    @property
    def consistent(self) -> bool:
        """Whether both orders name the same answer."""
        return (self.forward > 0.5) == (self.backward > 0.5)


class Ranker:
    """A trained ranker, ready to compare."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._labels = _labels(loaded)

    def compare(
        self,
        comparisons: Sequence[Comparison],
        max_tokens: int = 2048,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[Preference]:
        """One preference a comparison, in order; each must fit (see `why_unread`)."""
        groups = [self.group(one, swapped) for one in comparisons for swapped in (False, True)]
        right = [0.0] * len(groups)
        model, scorer = self._loaded.model, pick_scorer(self._loaded.model)
        with torch.no_grad():
            for batch in microbatches(groups, max_tokens):
                for index, logps in zip(
                    batch,
                    sequence_logps(model, [groups[index] for index in batch], scorer),
                    strict=True,
                ):
                    right[index] = (logps[0] - logps[1]).double().sigmoid().item()
                if on_rows is not None:
                    on_rows(len(batch))
        return [
            Preference(forward=right[place], backward=right[place + 1])
            for place in range(0, len(right), 2)
        ]

    def why_unread(self, comparison: Comparison) -> str | None:
        """Why this comparison cannot be asked; None where it can."""
        tokens = max(max(lengths(self.group(comparison, swapped))) for swapped in (False, True))
        return why_unread(tokens, context_length(self._loaded.model))

    def group(self, one: Comparison, swapped: bool) -> Group:
        """The question as a prompt, and the two labels as answers: that of the first answer, then
        that of the second.
        """
        first, second = (one.second, one.first) if swapped else (one.first, one.second)
        texts = {"prompt": one.prompt, "first": first, "second": second}
        text = TEMPLATE.read_text(encoding="utf-8").format(
            **{name: _MARKERS.sub("", text) for name, text in texts.items()}
        )
        ids = self._loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        labels = self._labels[::-1] if swapped else self._labels
        return Group(
            prompt=tuple(ids),
            answers=tuple((label,) for label in labels),
            row_ids=(one.row_id,),
            preference=one.certain,
        )


def load_ranker(lake: Lake, ref: ModelRef) -> Ranker:
    """A ranker of the lake, ready to compare."""
    return Ranker(load(lake.model(ref)["path"]))


def _labels(loaded: Loaded) -> tuple[int, int]:
    """The tokens that the two answers are called by."""
    first, second = (
        loaded.tokenizer(label, add_special_tokens=False)["input_ids"] for label in ("A", "B")
    )
    assert len(first) == len(second) == 1 and first != second, (
        "the tokenizer has no tokens for the labels"
    )
    return first[0], second[0]
