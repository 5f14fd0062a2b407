"""The pool of Self-Instruct as it grows, round by round: a function of the seeds and of the
replies, so a killed run finds its way back.

    growth = Growth(seeds, held_out, earlier, settings, count=48, seed=0)
    while not growth.ended: growth.take(replies to growth.contexts())
Test: pytest tests/tasks/self_instruct/test_growth.py
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dapflow.storage.rows import CompletionRow, PromptRow
from dapflow.tasks.prompts.overlap import Pool
from dapflow.tasks.seeds import generator
from dapflow.tasks.self_instruct.listing import fault, listed
from dapflow.tasks.self_instruct.settings import SelfInstruct


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A prompt of a context. `id`: of its row in the lake; None for one of this growth, number
    `place` of its `made`.
    """

    text: str
    id: str | None = None
    place: int = -1


@dataclass(frozen=True, kw_only=True)
class Made:
    """A new prompt, the id of the completion that it was read from, and what that was shown."""

    text: str
    reply: str
    context: Sequence[Shown]


class Growth:
    """New prompts, as many as `count`: of each reply those that the filters pass and that overlap
    with nothing there is.
    """

    def __init__(
        self,
        seeds: Sequence[PromptRow],
        held_out: Sequence[PromptRow],
        earlier: Sequence[PromptRow],
        settings: SelfInstruct,
        count: int,
        seed: int,
    ) -> None:
        """A seed that overlaps with a held-out prompt is never shown."""
        self.settings, self._count, self._seed = settings, count, seed
        self._held_out = Pool((row["prompt"] for row in held_out), settings.novelty)
        self._seeds = [
            Shown(text=row["prompt"], id=row["id"])
            for row in seeds
            if self._held_out.closest(row["prompt"]) is None
        ]
        self._earlier = [Shown(text=row["prompt"], id=row["id"]) for row in earlier]
        self._pool = Pool((row["prompt"] for row in [*seeds, *earlier]), settings.novelty)
        self._in_vain = 0  # rounds in a row that brought nothing
        self.hidden = len(seeds) - len(self._seeds)
        self.round = 0
        self.made: list[Made] = []
        self.left_out: list[Counter[str]] = []  # by reason, of each round

    @property
    def ended(self) -> bool:
        """Whether there is nothing to ask any more: enough prompts, or too many rounds that brought
        none.
        """
        return (
            len(self.made) >= self._count
            or self._in_vain >= self.settings.patience
            or not self._seeds
        )

    def contexts(self) -> list[list[Shown]]:
        """What the policy is shown in this round, one list for each time it is asked."""
        return [self._context(place) for place in range(self.settings.per_round)]

    def take(self, replies: Sequence[CompletionRow]) -> None:
        """Read the round's replies: `sampling.n` for each context, in order."""
        before, contexts, reasons = len(self.made), self.contexts(), Counter[str]()
        assert len(replies) == len(contexts) * self.settings.sampling.n
        for place, reply in enumerate(replies):
            if reply["finish_reason"] != "stop":
                reasons["refused" if reply["finish_reason"] == "refused" else "truncated"] += 1
                continue
            for text in listed(reply["text"]):
                if len(self.made) == self._count:
                    break
                if reason := self._reason(text):
                    reasons[reason] += 1
                else:
                    self._pool.add(text)
                    self.made.append(
                        Made(
                            text=text,
                            reply=reply["id"],
                            context=contexts[place // self.settings.sampling.n],
                        )
                    )
        self._in_vain = self._in_vain + 1 if len(self.made) == before else 0
        self.left_out.append(reasons)
        self.round += 1

    def _context(self, place: int) -> list[Shown]:
        rng = generator(self._seed, "self-instruct", self.round, place)
        s = self.settings
        machine = [
            *self._earlier,
            *(Shown(text=one.text, place=number) for number, one in enumerate(self.made)),
        ]
        own = rng.sample(machine, min(s.from_machine, len(machine)))
        shown = own + rng.sample(
            self._seeds, min(s.from_seeds + s.from_machine - len(own), len(self._seeds))
        )
        rng.shuffle(shown)
        return shown

    def _reason(self, text: str) -> str | None:
        """Why a prompt is left out, or None."""
        if reason := fault(text):
            return reason
        if self._held_out.closest(text):
            return "held_out"
        return "not_new" if self._pool.closest(text) else None
