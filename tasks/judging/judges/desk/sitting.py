"""A person's way through the questions: what is asked next, which answer stands left, what was
answered, and back.

    sitting = Sitting(lake, questions, enough=50, seed=0, known=latest_labels(lake, keys))
    sitting.shown() -> what the page shows;  sitting.answer(key, "left", 3.2);  sitting.undo();  sitting.wait()
Test: pytest tests/tasks/judging/judges/test_sitting.py
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from dapflow.storage import Lake
from dapflow.storage.labels import Label, Labelled, Question, Side, add_label, latest_labels
from dapflow.tasks.seeds import derive_seed

Choice = Literal["left", "right", "tie", "skip"]
GRACE_SECONDS = 8.0  # in which the last label can be taken back
_SECONDS_BETWEEN_LOOKS = 2.0  # at what others have labelled
_PULSE_SECONDS = 0.2
_OTHER: dict[Side, Side] = {"first": "second", "second": "first"}


class Sitting:
    """Several threads may call it. Questions come in an order of the seed, those that have a label
    are not asked.

    enough: labels (a better answer was named) at which it ends; None: when every question is
    answered.
    """

    def __init__(
        self,
        lake: Lake,
        questions: Sequence[Question],
        enough: int | None,
        seed: int,
        known: Mapping[str, Labelled],
        grace: float = GRACE_SECONDS,
    ) -> None:
        ordered = sorted(questions, key=lambda question: derive_seed(seed, "turn", question.key))
        self._lake = lake
        self._questions = {question.key: question for question in ordered}
        self._wanted = enough
        self._seed = seed
        self._labels = dict(known)
        self._mine: list[str] = []  # the keys answered here, for undo
        self._grace = grace
        self._ends_at: float | None = None  # when the sitting is over, once enough labels are in
        self._lock = threading.RLock()

    @property
    def labelled(self) -> int:
        """Questions in which a better answer was named."""
        return sum(
            self._labels[key].label in _OTHER for key in self._questions if key in self._labels
        )

    @property
    def missing(self) -> int:
        """Labels that it still needs, or fewer where there are not so many questions left."""
        left = sum(key not in self._labels for key in self._questions)
        return left if self._wanted is None else min(left, max(self._wanted - self.labelled, 0))

    @property
    def enough(self) -> bool:
        """Whether no more are needed."""
        return self.missing == 0

    def shown(self) -> dict[str, Any]:
        """What the page shows: the question with its answers as they stand, progress, and whether
        that is all.
        """
        with self._lock:
            seconds = None if self._ends_at is None else max(self._ends_at - time.monotonic(), 0.0)
            progress = {
                "done": self._total() - self.missing,
                "total": self._total(),
                "labelled": self.labelled,
            }
            common = {"progress": progress, "can_undo": bool(self._mine), "ends_in": seconds}
            key = (
                None
                if self.enough
                else next(key for key in self._questions if key not in self._labels)
            )
            if key is None:
                return {**common, "question": None}
            question = self._questions[key]
            left = self._left(key)
            texts = {"first": question.first, "second": question.second}
            asked = {
                "key": key,
                "instruction": question.instruction,
                "prompt": question.prompt,
                "person": question.person,
            }
            return {
                **common,
                "question": {**asked, "left": texts[left], "right": texts[_OTHER[left]]},
            }

    def answer(self, key: str, choice: Choice, seconds: float | None) -> bool:
        """Write a label down. False for a question that is not the one that is shown: a key pressed
        twice, or another window.
        """
        with self._lock:
            shown = self.shown()["question"]
            if shown is None or shown["key"] != key:
                return False
            left = self._left(key)
            label: Label = (
                left if choice == "left" else _OTHER[left] if choice == "right" else choice
            )
            add_label(self._lake, key, label, left, seconds)
            self._labels[key] = Labelled(label=label, left_side=left)
            self._mine.append(key)
            self._end_when_enough()
            return True

    def undo(self) -> bool:
        """Take the newest label of this sitting back: its question is asked again, at once. False
        where there is none.
        """
        with self._lock:
            if not self._mine:
                return False
            key = self._mine.pop()
            add_label(self._lake, key, "undo", self._left(key), None)
            self._labels.pop(key, None)
            self._questions = {key: self._questions[key], **self._questions}
            self._ends_at = None
            return True

    def finish(self) -> bool:
        """End it now, if enough labels are in."""
        with self._lock:
            if self.enough:
                self._ends_at = time.monotonic()
            return self.enough

    def wait(self, on_rows: Callable[[int], None] | None = None) -> None:
        """Return when enough labels are in, here or by other processes. on_rows: told how many
        questions were answered since, often.
        """
        told, looked = 0, time.monotonic()
        while self._ends_at is None or time.monotonic() < self._ends_at:
            time.sleep(_PULSE_SECONDS)
            if time.monotonic() - looked >= _SECONDS_BETWEEN_LOOKS:
                self._look()
                looked = time.monotonic()
            if on_rows:
                answered = len(self._mine)
                on_rows(answered - told)
                told = answered

    def _look(self) -> None:
        with self._lock:
            self._labels = latest_labels(self._lake, self._questions)
            self._mine = [key for key in self._mine if key in self._labels]
            self._end_when_enough()

    def _end_when_enough(self) -> None:
        if not self.enough:
            self._ends_at = None
        elif self._ends_at is None:
            self._ends_at = time.monotonic() + self._grace

    def _total(self) -> int:
        """Labels wanted, or what can be had: ties and skips take questions away."""
        useless = sum(
            self._labels[key].label not in _OTHER for key in self._questions if key in self._labels
        )
        return (
            len(self._questions)
            if self._wanted is None
            else min(self._wanted, len(self._questions) - useless)
        )

    def _left(self, key: str) -> Side:
        return "first" if derive_seed(self._seed, "left", key) % 2 else "second"
