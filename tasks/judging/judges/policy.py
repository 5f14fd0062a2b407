"""A policy as the judge: the prompts of an LLM judge, answered by the engine that samples from it.

    with policy_judge(lake, policy, asks, sampler, chat_template, log) as judge: verdicts = list(judge.compare(matches))
Test: pytest tests/tasks/judging/judges/test_policy.py
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from dapflow.storage import Lake, ModelRef
from dapflow.tasks.judging.asking.questions import comparison_texts, score_text
from dapflow.tasks.judging.judges.base import Match, Question, Verdict
from dapflow.tasks.judging.judges.prompted import SelfJudge
from dapflow.tasks.judging.replies.content import Reply
from dapflow.tasks.judging.replies.readings import (
    Reading,
    Unread,
    compared_verdict,
    read_reply,
    scored_verdict,
    still_cut,
)
from dapflow.tasks.sampling.engines.base import Completion, Engine, Request, Sampling
from dapflow.tasks.sampling.engines.sampler import Prompter, Sampler, engine_for
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.servers.client import Refusal
from dapflow.tasks.servers.message import split_thought

OnRows = Callable[[int], None] | None


class PolicyJudge:
    """Scores or compares, in both orders; the answers to one question are the same wherever it is
    asked. What does not fit the policy's context is refused."""

    together = False

    def __init__(self, name: str, asks: SelfJudge, engine: Engine, prompter: Prompter) -> None:
        self.name = name
        self._asks = asks
        self._engine = engine
        self._prompter = prompter
        self._template = asks.prompt_template()

    def compare(self, matches: Sequence[Match], on_rows: OnRows = None) -> Iterator[Verdict]:
        """One verdict per match, in order."""
        texts = [comparison_texts(self._asks, self._template, match) for match in matches]
        readings = self._ask([text for both in texts for text in both])
        for forward, backward in zip(readings[::2], readings[1::2], strict=True):
            yield compared_verdict([*forward, *backward])
            if on_rows:
                on_rows(1)

    def judge(self, questions: Sequence[Question], on_rows: OnRows = None) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        for readings in self._ask(
            [score_text(self._asks, self._template, question) for question in questions]
        ):
            yield scored_verdict(readings)
            if on_rows:
                on_rows(1)

    def _ask(self, texts: Sequence[str]) -> list[list[Reading]]:
        """What the answers to each text say, in as many samples as there are to be."""
        readings: list[list[Reading]] = [[] for _ in texts]
        requests = list[Request]()
        for place, text in enumerate(texts):
            ids, reason = self._prompter.render(text)
            if reason is None:
                seeds = tuple(
                    derive_seed("judge", text, sample) for sample in range(self._asks.samples)
                )
                requests.append(
                    Request(prompt_id=str(place), prompt_token_ids=ids, prompt=text, seeds=seeds)
                )
            else:
                readings[place] = [Refusal(reason=reason)] * self._asks.samples
        seeds_of = {request.prompt_id: request.seeds for request in requests}
        cut: dict[str, list[int]] = defaultdict(list)
        for answer, reading in self._readings(requests, self._asks.answer_tokens):
            if isinstance(reading, Unread) and reading.cut:
                cut[answer.prompt_id].append(seeds_of[answer.prompt_id][answer.sample])
            else:
                readings[int(answer.prompt_id)].append(reading)
        longer = [
            replace(request, seeds=tuple(cut[request.prompt_id]))
            for request in requests
            if request.prompt_id in cut
        ]
        fitting = [request for request in longer if self._fits(request)]
        for answer, reading in self._readings(fitting, self._asks.more_tokens):
            readings[int(answer.prompt_id)].append(still_cut(self._asks, reading))
        for request in longer:
            missing = self._asks.samples - len(readings[int(request.prompt_id)])
            readings[int(request.prompt_id)] += [
                Unread(reason=f"cut off at {self._asks.answer_tokens} tokens")
            ] * missing
        return readings

    def _readings(
        self, requests: Sequence[Request], max_tokens: int
    ) -> Iterator[tuple[Completion, Reading]]:
        """The answers of at most so many tokens, and what they say."""
        if not requests:
            return
        for answer in self._engine.generate(requests, sampling_of(self._asks, None, max_tokens)):
            if answer.finish_reason == "refused":
                yield answer, Refusal(reason=answer.note or "refused")
            else:
                reply = Reply(
                    text=split_thought(answer.text)[1], cut=answer.finish_reason == "length"
                )
                yield answer, read_reply(self._asks, reply)

    def _fits(self, request: Request) -> bool:
        """Whether the context has room for a longer answer."""
        return (
            not self._prompter.context
            or len(request.prompt_token_ids) + self._asks.more_tokens <= self._prompter.context
        )


def sampling_of(
    asks: SelfJudge, chat_template: str | None, max_tokens: int | None = None
) -> Sampling:
    """How the policy's answers are drawn when it judges."""
    return Sampling(
        n=asks.samples,
        temperature=asks.temperature,
        top_p=asks.top_p,
        max_tokens=max_tokens or asks.answer_tokens,
        chat_template=chat_template,
    )


@contextmanager
def policy_judge(
    lake: Lake,
    policy: ModelRef,
    asks: SelfJudge,
    sampler: Sampler,
    chat_template: str | None,
    log: Path,
    say: Callable[[str], None],
) -> Iterator[PolicyJudge]:
    """The judge that a policy of the lake is. log: where a server that it starts may write."""
    with engine_for(lake, policy, sampler, sampling_of(asks, chat_template), log, say) as (
        engine,
        prompter,
    ):
        yield PolicyJudge(f"{policy.version} {asks.template_name}", asks, engine, prompter)
        if report := engine.report():
            say(report)
