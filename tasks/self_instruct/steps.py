"""New prompts for the training, made by a policy (Self-Instruct, arXiv 2212.10560; in a loop:
Self-Rewarding, arXiv 2401.10020).

    self_instruct(policy, Known(seeds=...), SelfInstruct(), 48, seed, Sampler())  ->  prompts
Each prompt's row names the prompts that the policy was shown (`parents`, in order) and the
completion that it was read from (`source`), which names the policy and the seed. Test: pytest
tests/tasks/self_instruct
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

from dapflow.storage import DatasetRef, Lake, ModelRef, Ref, UserError
from dapflow.storage.rows import CompletionRow
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.sampling.engines.base import Completion, Engine, Request
from dapflow.tasks.sampling.engines.sampler import Prompter, Sampler, engine_for
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.self_instruct.growth import Growth
from dapflow.tasks.self_instruct.listing import listing
from dapflow.tasks.self_instruct.settings import SelfInstruct
from dapflow.tasks.step import Out, Work, step

_PER_REPLY = 4  # prompts that a reply brings, about: only for the plan


@dataclass(frozen=True, kw_only=True)
class Known:
    """The prompts that there are.

    seeds: those that the policy is shown.
    held_out: all that policies are measured on.
    earlier: what was made before; new prompts repeat neither these nor those.
    """

    seeds: DatasetRef
    held_out: tuple[DatasetRef, ...] = ()
    earlier: tuple[DatasetRef, ...] = ()

    def refs(self, role: str) -> dict[str, Ref]:
        """Parents in roles of their own."""
        del role
        refs: dict[str, Ref] = {"seeds": self.seeds}
        refs |= {f"held_out[{place}]": ref for place, ref in enumerate(self.held_out)}
        return refs | {f"earlier[{place}]": ref for place, ref in enumerate(self.earlier)}


def self_instruct(
    policy: ModelRef,
    known: Known,
    settings: SelfInstruct,
    count: int,
    seed: int,
    sampler: Sampler,
) -> DatasetRef:
    """`count` new prompts, fewer where the policy has no more to give."""
    seed = derive_seed(seed, settings.sampling.seed) if settings.sampling.seed else seed
    replies = ask_for_prompts(policy, known, settings, count, seed, sampler)
    return read_prompts(replies, known, settings, count, seed)


def _replies(settings: SelfInstruct, count: int) -> int:
    return -(-count // (_PER_REPLY * settings.per_round)) * settings.per_round * settings.sampling.n


@step(
    "completions",
    title="ask {policy} for {count} new prompts",
    expects=lambda settings, count, **_: _replies(settings, count),
    activity="prompting",
    work=lambda settings, count, **_: Work(
        sampled=_replies(settings, count) * settings.sampling.max_tokens
    ),
)
def ask_for_prompts(
    out: Out,
    policy: ModelRef,
    known: Known,
    settings: SelfInstruct,
    count: int,
    seed: int,
    sampler: Sampler,
) -> None:
    """Replies to lists of prompts, round by round, until enough new prompts can be read from them.
    A round is committed as one chunk.

    Raises UserError when there is not one.
    """
    growth = _growth(out.lake, known, settings, count, seed)
    with ExitStack() as opened:
        asked: tuple[Engine, Prompter] | None = None
        while not growth.ended:
            if out.pending(growth.round):
                asked = asked or opened.enter_context(
                    engine_for(
                        out.lake,
                        policy,
                        sampler,
                        settings.sampling,
                        out.scratch / "server.log",
                        out.say,
                    )
                )
                out.write(growth.round, _ask(out, policy, growth, seed, *asked))
            growth.take(cast("list[CompletionRow]", out.rows(growth.round)))
            out.progress(len(growth.made), count, "prompts")
    if not growth.made:
        raise UserError(
            f"The policy has made no new prompt ({_told(growth)}): take another one, more seeds, "
            "or set prompts.schedule=next."
        )


@step(
    "prompts",
    title="read new prompts from {replies.rows} replies",
    expects=lambda count, **_: count,
    activity="reading",
)
def read_prompts(
    out: Out,
    replies: DatasetRef,
    known: Known,
    settings: SelfInstruct,
    count: int,
    seed: int,
) -> None:
    """The prompts in the replies that pass the filters; how many did not, by reason and round, as
    metrics.
    """
    growth = _growth(out.lake, known, settings, count, seed)
    rows, size = out.lake.completions(replies), settings.per_round * settings.sampling.n
    for first in range(0, len(rows), size):
        growth.take(rows[first : first + size])
    out.say(f"{len(growth.made)} new prompts of {count} wanted ({_told(growth)})")
    out.write(
        0,
        [
            prompt_row(
                out.row_id(n),
                prompt.text,
                prompt.reply,
                split="train",
                parents=[shown.id or out.row_id(shown.place) for shown in prompt.context],
            )
            for n, prompt in enumerate(growth.made)
        ],
    )
    out.write(1, _figures(out, growth), table="metrics")


def _growth(lake: Lake, known: Known, settings: SelfInstruct, count: int, seed: int) -> Growth:
    before = [row for ref in known.earlier for row in lake.prompts(ref)]
    aside = [row for ref in known.held_out for row in lake.prompts(ref)]
    return Growth(lake.prompts(known.seeds), aside, before, settings, count, seed)


def _ask(
    out: Out,
    policy: ModelRef,
    growth: Growth,
    seed: int,
    engine: Engine,
    prompter: Prompter,
) -> list[dict[str, Any]]:
    """The replies of one round, as rows of `completions`."""
    settings, n, number = growth.settings, growth.settings.sampling.n, growth.round
    requests, answers = list[Request](), dict[tuple[str, int], Completion]()
    for place, shown in enumerate(growth.contexts()):
        text = listing([one.text for one in shown])
        ids, reason = prompter.render(text)
        seeds = tuple(_seed(seed, number, place, sample) for sample in range(n))
        if reason is None:
            requests.append(
                Request(prompt_id=str(place), prompt_token_ids=ids, seeds=seeds, prompt=text)
            )
        for sample in range(n if reason else 0):
            answers[str(place), sample] = Completion(
                prompt_id=str(place),
                sample=sample,
                text="",
                token_ids=[],
                logprobs=[],
                finish_reason="refused",
                note=reason,
            )
    for one in engine.generate(requests, settings.sampling):
        answers[one.prompt_id, one.sample] = one
    return [
        {
            "id": out.row_id((number * settings.per_round + place) * n + sample),
            "sample": sample,
            "policy": policy.version,
            "seed": _seed(seed, number, place, sample),
            "text": one.text,
            "token_ids": one.token_ids,
            "logprobs": one.logprobs,
            "finish_reason": one.finish_reason,
            "note": one.note,
        }
        for place in range(settings.per_round)
        for sample in range(n)
        for one in [answers[str(place), sample]]
    ]


def _seed(seed: int, number: int, place: int, sample: int) -> int:
    return derive_seed(seed, "self-instruct", number, place, sample)


def _told(growth: Growth) -> str:
    """Why prompts were left out, and how often."""
    total = sum(growth.left_out, start=type(growth.left_out[0])()) if growth.left_out else {}
    reasons = [
        f"{count} {reason.replace('_', ' ')}"
        for reason, count in sorted(total.items(), key=lambda one: (-one[1], one[0]))
    ]
    seeds = [f"{growth.hidden} seeds too close to held-out prompts"] if growth.hidden else []
    return "left out: " + (", ".join(reasons + seeds) or "none")


def _figures(out: Out, growth: Growth) -> list[dict[str, Any]]:
    figures = [
        (reason, number, count)
        for number, reasons in enumerate(growth.left_out)
        for reason, count in sorted(reasons.items())
    ]
    told = [("seeds_hidden", None, growth.hidden), ("made", None, len(growth.made)), *figures]
    return [
        {
            "id": out.row_id(n),
            "subject": out.version,
            "name": name,
            "step": number,
            "value": float(count),
            "unit": "prompts",
        }
        for n, (name, number, count) in enumerate(told)
    ]
