"""The policy answers the prompts.

    sample(policy, prompts, sampling)  ->  completions (token ids, raw log-probs, finish reason, per row a seed of its own)
Rows are committed in chunks of whole prompts as they come; a killed run samples only the chunks
that are missing, and they come out the same.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from dapflow.storage import DatasetRef, ModelRef
from dapflow.storage.rows import PromptRow
from dapflow.tasks.sampling.engines.base import Completion, Engine, Request, Sampling
from dapflow.tasks.sampling.engines.sampler import Prompter, Sampler, engine_for
from dapflow.tasks.sampling.engines.thoughts import Thoughts
from dapflow.tasks.sampling.sweep import chosen_temperature
from dapflow.tasks.seeds import derive_seed
from dapflow.tasks.step import Contents, Out, Work, contents_of, step
from dapflow.tasks.step.shards import in_this_process, spread

Chunk = Sequence[tuple[int, PromptRow]]
"""Prompts with their ordinals."""


@step(
    "completions",
    title="sample {prompts.rows} x {sampling.n} from {policy}",
    expects=lambda prompts, sampling, **_: prompts.rows * sampling.n,
    activity="sampling",
    work=lambda prompts, sampling, **_: Work(
        sampled=prompts.rows * sampling.n * sampling.max_tokens,
        shards=True,
        makes=Contents(
            rows=prompts.rows * sampling.n,
            prompts=prompts.rows,
            prompt_tokens=contents_of(prompts).prompt_tokens,
            answer_tokens=sampling.max_tokens,
        ),
    ),
)
def sample(
    out: Out,
    policy: ModelRef,
    prompts: DatasetRef,
    sampling: Sampling,
    seed: int,
    sampler: Sampler,
    sweep: DatasetRef | None = None,
) -> None:
    """`sampling.n` completions per prompt, at the temperature that a sweep has chosen, if there was
    one.

    A prompt that leaves no room in the model's context gets refused rows, with the reason.
    """
    if sweep is not None:
        sampling = sampling.model_copy(update={"temperature": chosen_temperature(out.lake, sweep)})
    seed = derive_seed(seed, sampling.seed) if sampling.seed else seed
    total = -(-prompts.rows // sampler.prompts_per_chunk(sampling.n))
    with nullcontext() if sampler.of_the_policy else in_this_process():
        spread(
            out,
            sample_chunks,
            total,
            policy=policy,
            prompts=prompts,
            sampling=sampling,
            seed=seed,
            sampler=sampler,
        )


def sample_chunks(
    out: Out, policy: ModelRef, prompts: DatasetRef, sampling: Sampling, seed: int, sampler: Sampler
) -> None:
    """Write the chunks that are missing."""
    rows, size = list(enumerate(out.lake.prompts(prompts))), sampler.prompts_per_chunk(sampling.n)
    chunks = [rows[first : first + size] for first in range(0, len(rows), size)]
    missing = list(out.missing(chunks))
    if not missing:
        return
    log = out.scratch / f"server-{out.share.index}.log"
    with engine_for(out.lake, policy, sampler, sampling, log, out.say) as (engine, prompter):
        refused, thoughts = Counter[str | None](), Thoughts()
        progress = _Progress(
            out, len(rows) * sampling.n * sampling.max_tokens, len(chunks), len(missing)
        )
        for some in [missing] if engine.together else [[one] for one in missing]:
            for number, answers in _sampled(engine, prompter, some, sampling, seed, progress):
                out.write(number, list(_rows(out, chunks[number], answers, policy, seed)))
                refused.update(one.note for one in answers if one.finish_reason == "refused")
                thoughts.count(answers)
                progress.chunk_done()
        if report := engine.report():
            out.say(report)
        if warning := thoughts.warning():
            out.say(f"WARNING: {warning}")
        if refused:
            [(reason, _)] = refused.most_common(1)
            others = (
                f", and {len(refused) - 1} more reasons in their notes" if len(refused) > 1 else ""
            )
            out.say(f"{refused.total()} answers are refused: {reason}{others}")


def _sampled(
    engine: Engine,
    prompter: Prompter,
    chunks: Sequence[tuple[int, Chunk]],
    sampling: Sampling,
    seed: int,
    progress: "_Progress",
) -> Iterator[tuple[int, list[Completion]]]:
    """The completions of each chunk, prompt by prompt and sample by sample, as soon as the last of
    them is there.
    """
    places = {row["id"]: number for number, chunk in chunks for _, row in chunk}
    answers: dict[int, list[Completion]] = {number: [] for number, _ in chunks}
    whole = {number: len(chunk) * sampling.n for number, chunk in chunks}
    requests, refused = list[Request](), list[Completion]()
    for ordinal, row in (one for _, chunk in chunks for one in chunk):
        earlier = tuple(row["earlier"] or ())
        ids, reason = prompter.render(row["prompt"], earlier)
        if reason is None:
            seeds = tuple(_seed(seed, ordinal, sample) for sample in range(sampling.n))
            requests.append(
                Request(
                    prompt_id=row["id"],
                    prompt_token_ids=ids,
                    seeds=seeds,
                    prompt=row["prompt"],
                    earlier=earlier,
                )
            )
        else:
            refused += [_refused(row["id"], sample, reason) for sample in range(sampling.n)]

    def done(completion: Completion) -> Iterator[tuple[int, list[Completion]]]:
        number = places[completion.prompt_id]
        answers[number].append(completion)
        if len(answers[number]) == whole[number]:
            yield number, answers.pop(number)

    for completion in refused:
        yield from done(completion)
    for completion in engine.generate(requests, sampling, progress.advance):
        yield from done(completion)


def _rows(
    out: Out, chunk: Chunk, answers: Sequence[Completion], policy: ModelRef, seed: int
) -> Iterator[dict[str, Any]]:
    ordinals = {row["id"]: ordinal for ordinal, row in chunk}
    n = len(answers) // len(chunk)
    for one in sorted(answers, key=lambda one: (ordinals[one.prompt_id], one.sample)):
        ordinal = ordinals[one.prompt_id]
        yield {
            "id": out.row_id(ordinal * n + one.sample),
            "prompt_id": one.prompt_id,
            "sample": one.sample,
            "policy": policy.version,
            "seed": _seed(seed, ordinal, one.sample),
            "text": one.text,
            "token_ids": one.token_ids,
            "logprobs": one.logprobs,
            "finish_reason": one.finish_reason,
            "note": one.note,
        }


def _refused(prompt_id: str, sample: int, reason: str) -> Completion:
    return Completion(
        prompt_id=prompt_id,
        sample=sample,
        text="",
        token_ids=[],
        logprobs=[],
        finish_reason="refused",
        note=reason,
    )


def _seed(seed: int, ordinal: int, sample: int) -> int:
    return derive_seed(seed, "sample", ordinal, sample)


class _Progress:
    """Tokens sampled of those expected. Answers that end early make the expected tokens too many: a
    finished chunk puts it right.
    """

    def __init__(self, out: Out, expected: int, chunks: int, missing: int) -> None:
        self.out, self.expected, self.chunks, self.done = out, expected, chunks, chunks - missing
        self.sampled = round(self.done / chunks * expected)

    def advance(self, tokens: int) -> None:
        self.sampled += tokens
        self.out.progress(min(self.sampled, self.expected), self.expected, "tokens")

    def chunk_done(self) -> None:
        self.done += 1
        self.sampled = max(self.sampled, round(self.done / self.chunks * self.expected))
        self.advance(0)
