"""Groups of answers to one prompt, laid out without padding: [prompt | y1 | ... | yK][prompt | y1
...]... in one row.

Plain values in, tensors out; no model. Test: pytest tests/tasks/models/packed/test_batches.py
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain

import torch
from torch import Tensor

from dapflow.storage.errors import UserError
from dapflow.tasks.seeds import generator


@dataclass(frozen=True, kw_only=True)
class Experience:
    """What is kept of a group's answers as they were sampled, each fp32 [tokens], answer after
    answer.

    logps, values: of the policy and the value model then; returns: advantages, before they were
    whitened, plus values. scale: tokens of a group, the mean over the round: a loss that sums over
    tokens and divides by it weighs every token of the round alike.
    """

    logps: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scale: float


@dataclass(frozen=True, kw_only=True)
class Group:
    """The answers to one prompt, best first, as token ids; a finished answer ends with its
    end-of-sequence token.

    `row_ids` name the rows the group came from. `reference` holds log pi_ref(answer | prompt), one
    per answer; `rewards`, where a loss wants more than the order, one per answer; `preference` the
    probability that the first is better than the last; `experience` what actor-critic methods keep
    of the answers' tokens. Raises UserError where the prompt or an answer is empty.
    """

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]
    row_ids: tuple[str, ...]
    reference: tuple[float, ...] | None = None
    rewards: tuple[float, ...] | None = None
    preference: float | None = None
    experience: Experience | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.prompt or not self.answers or not all(self.answers):
            raise UserError(
                f"The prompt or an answer of {', '.join(self.row_ids)} has no tokens: drop it "
                "before training."
            )
        for per_answer in (self.reference, self.rewards):
            assert per_answer is None or len(per_answer) == len(self.answers), (
                "one value per answer"
            )

    @cached_property
    def key(self) -> str:
        """Digest of the prompt and its answers: recognises them whatever rows they came from."""
        return hashlib.sha256(
            json.dumps([self.prompt, self.answers], separators=(",", ":")).encode()
        ).hexdigest()

    @property
    def tokens(self) -> int:
        """Tokens of the group's row: the prompt once, and each answer without its last token, which
        predicts nothing.
        """
        return len(self.prompt) + sum(len(answer) - 1 for answer in self.answers)


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Where one group lies in the row: the prompt is [start, prompt_end), answer k is [ends[k-1],
    ends[k]), ends[-1] meaning prompt_end.
    """

    start: int
    prompt_end: int
    ends: tuple[int, ...]

    @property
    def answers(self) -> list[tuple[int, int]]:
        """[begin, end) of each answer in the row; empty for an answer of a single token."""
        return list(zip((self.prompt_end, *self.ends[:-1]), self.ends, strict=True))


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Several groups in one row of L tokens, and the T completion tokens to score, answer after
    answer.

    input_ids, position_ids [1, L]; source [T], the place in the row whose hidden state predicts the
    token; target [T], the token; lengths: tokens of each answer, group after group.
    """

    input_ids: Tensor
    position_ids: Tensor
    source: Tensor
    target: Tensor
    segments: tuple[Segments, ...]
    lengths: tuple[int, ...]


def pack(groups: Sequence[Group], device: torch.device | str = "cpu") -> Packed:
    """Lay the groups out in one row. An answer's positions go on from its prompt's end; its last
    token is only a target.
    """
    ids, positions, source, segments = list[int](), list[int](), list[int](), list[Segments]()
    for group in groups:
        start, prompt_end = len(ids), len(ids) + len(group.prompt)
        ids += chain(group.prompt, *(answer[:-1] for answer in group.answers))
        positions += range(len(group.prompt))
        ends = tuple(accumulate((len(answer) - 1 for answer in group.answers), initial=prompt_end))
        for answer, begin in zip(group.answers, ends[:-1], strict=True):
            positions += range(len(group.prompt), len(group.prompt) + len(answer) - 1)
            source += [prompt_end - 1, *range(begin, begin + len(answer) - 1)]
        segments.append(Segments(start=start, prompt_end=prompt_end, ends=ends[1:]))
    answers = [answer for group in groups for answer in group.answers]
    return Packed(
        input_ids=torch.tensor([ids], device=device),
        position_ids=torch.tensor([positions], device=device),
        source=torch.tensor(source, device=device),
        target=torch.tensor(list(chain(*answers)), device=device),
        segments=tuple(segments),
        lengths=tuple(map(len, answers)),
    )


def microbatches(groups: Sequence[Group], max_tokens: int) -> list[list[int]]:
    """Indices of the groups, longest first, cut into micro-batches of at most max_tokens tokens (a
    longer group stands alone).
    """
    order = sorted(range(len(groups)), key=lambda index: (-groups[index].tokens, index))
    batches, room = list[list[int]](), 0
    for index in order:
        if not batches or groups[index].tokens > room:
            batches.append([])
            room = max_tokens
        batches[-1].append(index)
        room -= groups[index].tokens
    return batches


def epochs(count: int, batch_size: int, times: int, seed: int) -> Iterator[tuple[int, list[int]]]:
    """(epoch, indices) of each step: a permutation of `count` groups for each epoch, the last batch
    of which may be smaller.
    """
    for epoch in range(times):
        order = list(range(count))
        generator(seed, "training order", epoch).shuffle(order)
        for start in range(0, count, batch_size):
            yield epoch, order[start : start + batch_size]
