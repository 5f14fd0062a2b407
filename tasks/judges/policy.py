"""A policy as the judge, of itself or of another: the additive five-point prompt of Self-Rewarding (arXiv 2401.10020), averaged over samples."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from storage import Lake, ModelRef
from tasks.chat import context_length, render
from tasks.engines.base import Request, Sampling
from tasks.engines.transformers import TransformersEngine
from tasks.judges.base import Question, Verdict
from tasks.judges.parsing import parse_score
from tasks.judges.templates import fill
from tasks.policy import load_policy
from tasks.seeds import derive_seed

TEMPLATE = Path(__file__).parent / "prompts" / "additive-v1.txt"
_SAMPLING = Sampling(n=3, temperature=0.7, top_p=0.9, max_tokens=160)


class PolicyJudge:
    """The mean of the readable ones of three scores in [0, 5]; invalid when none can be read, refused when the context is too short."""

    together = False

    def __init__(self, lake: Lake, ref: ModelRef) -> None:
        self.name = f"{ref.version} {TEMPLATE.stem}"
        self._loaded = load_policy(lake, ref)
        self._engine = TransformersEngine(self._loaded)
        self._template = TEMPLATE.read_text(encoding="utf-8")

    def judge(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        requests = [self._request(question) for question in questions]
        room = context_length(self._loaded.model) - _SAMPLING.max_tokens
        asked = [request for request in requests if len(request.prompt_token_ids) <= room]
        scores: dict[str, list[float | None]] = {request.prompt_id: [] for request in asked}
        for answer in self._engine.generate(asked, _SAMPLING):
            scores[answer.prompt_id].append(parse_score(answer.text))
        for question in questions:
            yield mean_score(scores.get(question.completion_id))
            if on_rows:
                on_rows(1)

    def _request(self, question: Question) -> Request:
        ids = render(self._loaded.tokenizer, fill(self._template, prompt=question.prompt, completion=question.completion))
        seeds = tuple(derive_seed("judge", question.completion_id, sample) for sample in range(_SAMPLING.n))
        return Request(prompt_id=question.completion_id, prompt_token_ids=tuple(ids), seeds=seeds)


def mean_score(scores: Sequence[float | None] | None) -> Verdict:
    """The verdict that some answers amount to: the mean of those that could be read. None: it could not be asked."""
    if scores is None:
        return Verdict(outcome="refused", note="the judge's context is too short for it")
    valid = [score for score in scores if score is not None]
    if not valid:
        return Verdict(outcome="invalid", note=f"none of {len(scores)} answers holds a score")
    return Verdict(outcome="scored", score=sum(valid) / len(valid), note=f"{len(valid)} of {len(scores)} answers hold a score")
