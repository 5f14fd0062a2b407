"""What became of the requests to one server: counted, told in a sentence, and where all are refused
for the same reason, ended.

Test: pytest tests/tasks/sampling/engines/test_openai.py
"""

from collections import Counter
from typing import Any

from dapflow.tasks.servers.refusal import Refusal, Unaffordable, is_of_the_question, same_reason

HOPELESS = 3  # refusals in a row for the same reason, after which it is not the questions
_TOLD = 2  # reasons


class Tally:
    """`counts`: answers, refusals, what was not sent, and by reason what was asked again."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()  # of refusals
        self._row: Counter[str] = Counter()  # of those since the last answer

    @property
    def answered(self) -> int:
        """So many requests."""
        return self.counts["answered"]

    def add(self, answer: Any) -> bool:
        """Count it. Whether as many in a row as are too many were refused for the same reason,
        which lies in no question.
        """
        if isinstance(answer, Unaffordable):
            self.counts["unsent"] += 1
            return False
        if not isinstance(answer, Refusal):
            self.counts["answered"] += 1
            self._row.clear()
            return False
        self.counts["refused"] += 1
        self._reasons[answer.reason] += 1
        if is_of_the_question(answer.reason) or (self.answered and answer.status != 403):
            return False
        self._row[same_reason(answer.reason)] += 1
        return self._row[same_reason(answer.reason)] == HOPELESS

    def report(self, name: str) -> str:
        """One sentence on what happened; empty where every request was answered at once."""
        again = {
            reason: count
            for reason, count in self.counts.items()
            if reason not in ("answered", "refused", "unsent")
        }
        if not again and not self.counts["refused"] and not self.counts["unsent"]:
            return ""
        reasons = ", ".join(f"{count} x {reason}" for reason, count in sorted(again.items()))
        asked = f"{self.answered} answered, {self.counts['refused']} refused{self._why()}"
        asked += (
            f", {self.counts['unsent']} not sent, since the budget is spent"
            if self.counts["unsent"]
            else ""
        )
        return f"{name}: {asked}" + (f"; asked again after {reasons}" if again else "")

    def _why(self) -> str:
        told = "; ".join(reason for reason, _ in self._reasons.most_common(_TOLD))
        return f" ({told})" if told else ""
