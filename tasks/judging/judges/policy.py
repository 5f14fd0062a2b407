"""The kind `policy`: the policy that is trained judges, asked in an LLM judge's words by the engine
that samples from it. How good a judge it is: tasks/evaluation/judge_quality.py.

Test: pytest tests/tasks/judging/judges/test_policy.py
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field

from dapflow.tasks.judging.asking.questions import comparison_texts, score_text
from dapflow.tasks.judging.judges.base import Match, Question, Verdict
from dapflow.tasks.judging.judges.prompted import Prompted
from dapflow.tasks.judging.kinds import spec_of
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.replies.content import Reply
from dapflow.tasks.judging.replies.readings import (
    Reading,
    Unread,
    compared_verdict,
    read_reply,
    scored_verdict,
    still_cut,
)
from dapflow.tasks.judging.spec import Opening, Proof, Seated, Seats
from dapflow.tasks.sampling.engines.base import Completion, Engine, Request, Sampling
from dapflow.tasks.sampling.engines.sampler import Prompter, Sampler, engine_for
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.servers.client import Refusal
from dapflow.tasks.servers.message import split_thought
from dapflow.tasks.step import Work

OnRows = Callable[[int], None] | None
_ASKED_TOKENS = 400  # of a prompt, with the material in it, about
STOP = "stop"
"""The fallback of a run that stops where its policy cannot judge."""


class SelfJudge(Prompted):
    """The policy that is being trained, asked by its own engine (Self-Rewarding, arXiv 2401.10020:
    three answers, averaged).
    """

    MACHINE: ClassVar[dict[str, Any]] = {
        "template": True,
        "fallback": True,
        "labelled": True,
    }  # what decides nothing of a verdict
    answers_at_once: ClassVar[bool] = False
    may_measure: ClassVar[bool] = False
    why_no_member: ClassVar[str | None] = (
        "the policy judges alone, since it is measured each iteration and replaced where it cannot "
        "judge: set judge=policy, or serve a policy (`dapflow serve`) and name it as an LLM, "
        "{kind: llm, endpoint: {base_url: ..., model: ...}}"
    )
    kind: Literal["policy"] = "policy"
    mode: Literal["pairwise", "additive", "ten", "rubric"] = Field(
        default="additive", description="as of an LLM that judges"
    )
    samples: int = Field(
        default=3,
        ge=1,
        description="answers to each question, averaged over those that can be read",
    )
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_tokens: int = Field(
        default=160,
        ge=1,
        description="of an answer with reasons; as long as the judgements that it learns from",
    )
    fallback: str = Field(
        default="reward-model",
        description=(
            "who judges instead when it is no better than chance on labelled pairs: "
            "`reward-model`, a program, `models@...`; or `stop`"
        ),
    )
    labelled: int = Field(
        default=200,
        ge=1,
        description="pairs, at most, of the preferences' test part on which it is measured each iteration",
    )

    @property
    def more_tokens(self) -> int:
        """Twice as many: a small policy rarely comes to an end at all."""
        return 2 * self.answer_tokens

    def __str__(self) -> str:
        return f"itself, {self.template_name}"

    @property
    def proof(self) -> Proof:
        """Agreement with people, better than chance."""
        return Proof(
            labelled=self.labelled, fallback=None if self.fallback == STOP else self.fallback
        )

    def check(self) -> None:
        """Raise UserError for a template that does not fit, or a fallback that is no judge."""
        super().check()
        if self.fallback != STOP:
            spec_of(self.fallback).check()

    def executes(self) -> Iterator[tuple[str, str]]:
        """What its fallback does."""
        if self.fallback != STOP:
            for _, function in spec_of(self.fallback).executes():
                yield "fallback", function

    @property
    def ready(self) -> bool:
        """It is what a run trains."""
        return False

    @property
    def compares_with_a_baseline(self) -> bool:
        """Whether its fallback does."""
        return self.fallback != STOP and spec_of(self.fallback).compares_with_a_baseline

    def seated(self, seats: Seats) -> Seated:
        """The policy of the run."""
        settings = dict(self) | {"sampler": seats.sampler, "chat_template": seats.chat_template}
        return Seated(spec=PolicyAsked(**settings), model=seats.policy)


class PolicyAsked(SelfJudge):
    """The policy as it is asked: by which engine, and how its prompts are rendered."""

    MACHINE: ClassVar[dict[str, Any]] = SelfJudge.MACHINE | {"sampler": Sampler.MACHINE}
    sampler: Sampler
    chat_template: str | None

    @property
    def compares_with_a_baseline(self) -> bool:
        """It is the fallback that may."""
        return False

    def work(self, material: Material) -> Work:
        """Tokens that the policy reads and writes."""
        calls = material.verdicts * self.calls_per_verdict
        sampled, scored = calls * self.answer_tokens, calls * _ASKED_TOKENS
        return Work(calls=calls, sampled=sampled, scored=scored, shards=True)

    @contextmanager
    def open(self, opening: Opening) -> "Iterator[PolicyJudge]":
        """The engine of the policy, for as long as the block lasts."""
        assert opening.model is not None, "see SelfJudge.seated"
        with engine_for(
            opening.lake,
            opening.model,
            self.sampler,
            sampling_of(self, self.chat_template),
            opening.log,
            opening.say,
        ) as (engine, prompter):
            name = f"{opening.model.version} {self.template_name}"
            yield PolicyJudge(name, self, engine, prompter)
            if report := engine.report():
                opening.say(report)


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
