"""The reward model as a judge: pointwise, batched, prompts computed once for all their completions."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from storage import Lake, ModelRef
from tasks.judges.base import Question, Verdict
from tasks.training.features import text_group
from tasks.training.pointwise import load_scorer


class RewardModelJudge:
    """Scores in logits: sigmoid(a - b) is the probability that a is the better answer."""

    together = False

    def __init__(self, lake: Lake, ref: ModelRef) -> None:
        self.name = ref.version
        self._scorer = load_scorer(lake, ref)

    def judge(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """One verdict per question, in order; questions about the same prompt that follow one another share its computation."""
        tokenizer = self._scorer.backbone.tokenizer
        groups = []
        for turns, same in groupby(questions, key=lambda question: question.turns or (question.prompt,)):
            members = list(same)
            groups.append(text_group(tokenizer, turns[-1], [one.completion for one in members], members[0].completion_id, turns[:-1]))
        scores = self._scorer.scores(groups, on_groups=lambda count: None)
        for score in (score for group in scores for score in group):
            yield Verdict(outcome="scored", score=float(score))
            if on_rows:
                on_rows(1)
