"""The pairwise ranker as a judge: of each completion against one baseline answer to its prompt, or
of two (RSO, arXiv 2309.06657, 3.2).

Test: pytest tests/flows/test_run.py -k ranker
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.judging.judges.base import Match, Question, Verdict, weigh
from dapflow.tasks.models.ranker import Comparison, Preference, load_ranker

_LEAST = 1e-6  # probabilities are kept this far from 0 and 1, so that their logit is finite


class RankerJudge:
    """r(x, y) = logit rho(x, y, y_b): 0 for an answer as good as the baseline y_b. Without a
    baseline a completion is invalid.
    """

    together = False

    def __init__(self, lake: Lake, ref: ModelRef, baselines: Mapping[str, str]) -> None:
        self.name = ref.version
        self._ranker = load_ranker(lake, ref)
        self._baselines = baselines

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        comparisons = [
            Comparison(
                question.prompt,
                question.completion,
                self._baselines.get(question.prompt, ""),
                question.completion_id,
            )
            for question in questions
        ]
        notes = [self._why_not(comparison) for comparison in comparisons]
        preferences = iter(
            self._ranker.compare(
                [one for one, note in zip(comparisons, notes, strict=True) if note is None]
            )
        )
        for note in notes:
            yield (
                Verdict(outcome="invalid", note=note)
                if note
                else Verdict(outcome="scored", score=_logit(next(preferences).probability))
            )
            if on_rows:
                on_rows(1)

    def compare(
        self, matches: Sequence[Match], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """rho(x, y_1, y_2) in both orders, one verdict per match: who labels the pairs of accepted
        candidates. Baselines play no part.
        """
        comparisons = [
            Comparison(match.prompt, match.first, match.second, match.completion_id)
            for match in matches
        ]
        notes = [self._ranker.why_unread(comparison) for comparison in comparisons]
        preferences = iter(
            self._ranker.compare(
                [one for one, note in zip(comparisons, notes, strict=True) if note is None]
            )
        )
        for note in notes:
            yield Verdict(outcome="invalid", note=note) if note else _weighed(next(preferences))
            if on_rows:
                on_rows(1)

    def _why_not(self, comparison: Comparison) -> str | None:
        return (
            self._ranker.why_unread(comparison)
            if comparison.second.strip()
            else "no baseline answer to compare with"
        )


def _weighed(preference: Preference) -> Verdict:
    return weigh(preference.forward, 1 - preference.backward)


def _logit(probability: float) -> float:
    kept = min(max(probability, _LEAST), 1 - _LEAST)
    return math.log(kept / (1 - kept))
