"""The reward model as a judge: pointwise, batched, prompts computed once for all their completions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.judging.judges.base import Question, Verdict
from dapflow.tasks.models.chat import context_length
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.packed.features import text_group
from dapflow.tasks.models.packed.lengths import fitting, lengths, why_unread
from dapflow.tasks.models.reward_head import load_scorer


class RewardModelJudge:
    """Scores in logits: sigmoid(a - b) is the probability that a is the better answer."""

    together = False

    def __init__(self, lake: Lake, ref: ModelRef) -> None:
        self.name = ref.version
        self._scorer = load_scorer(lake, ref)

    def judge(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> Iterator[Verdict]:
        """One verdict per question, in order; questions about the same prompt that follow one
        another share its computation.
        """
        groups = list[Group]()
        for turns, same in groupby(
            questions, key=lambda question: question.turns or (question.prompt,)
        ):
            groups.append(self._group(turns, list(same)))
        context = context_length(self._scorer.backbone.model)
        kept, _ = fitting(groups, context, least=1)
        scores = iter(
            [
                float(score)
                for group in self._scorer.scores(kept, on_groups=lambda count: None)
                for score in group
            ]
        )
        for tokens in (tokens for group in groups for tokens in lengths(group)):
            note = why_unread(tokens, context)
            yield (
                Verdict(outcome="invalid", note=note)
                if note
                else Verdict(outcome="scored", score=next(scores))
            )
            if on_rows:
                on_rows(1)

    def _group(self, turns: Sequence[str], questions: Sequence[Question]) -> Group:
        """The answers to one prompt, a row each."""
        answers = [question.completion for question in questions]
        group = text_group(
            self._scorer.backbone.tokenizer,
            turns[-1],
            answers,
            questions[0].completion_id,
            turns[:-1],
        )
        return replace(group, row_ids=tuple(question.completion_id for question in questions))
