"""The policy answers the prompts.

    sample(policy, prompts, sampling)  ->  completions (token ids, raw log-probs, finish reason, per row a seed of its own)
Rows are committed in chunks of whole prompts; a killed run samples only the chunks that are missing, and they come out the same.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from storage import DatasetRef, ModelRef
from tasks.chat import context_length, render
from tasks.engines.base import Completion, Request, Sampling
from tasks.engines.transformers import TransformersEngine
from tasks.policy import load_policy
from tasks.seeds import derive_seed
from tasks.step import Out, step

_ROWS_PER_CHUNK = 128  # part of what decides the numbers of a batch, so a constant


@step(
    "completions",
    title="sample {prompts.rows} x {sampling.n} from {policy}",
    expects=lambda prompts, sampling, **_: prompts.rows * sampling.n,
)
def sample(out: Out, policy: ModelRef, prompts: DatasetRef, sampling: Sampling, seed: int) -> None:
    """`sampling.n` completions per prompt. A prompt that leaves no room in the model's context gets refused rows, with the reason."""
    loaded = load_policy(out.lake, policy)
    engine = TransformersEngine(loaded)
    rows = out.lake.rows_of(prompts)
    chunks = list(_chunks(rows, max(1, _ROWS_PER_CHUNK // sampling.n)))
    expected = len(rows) * sampling.n * sampling.max_tokens
    sampled = 0

    def advance(tokens: int) -> None:
        nonlocal sampled
        sampled += tokens
        out.progress(sampled, expected, "tokens")

    for number, chunk in out.missing(chunks):
        requests, refused = _requests(loaded, chunk, sampling, seed)
        completions = {(one.prompt_id, one.sample): one for one in engine.generate(requests, sampling, advance)}
        out.write(number, list(_rows(out, chunk, completions, refused, policy, sampling, seed)))
        done = (number + 1) / len(chunks)  # answers that end early make the expected tokens too many
        sampled = round(done * expected)
        out.progress(sampled, expected, "tokens")


def _chunks(rows: Sequence[dict[str, Any]], size: int) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    numbered = iter(enumerate(rows))
    while chunk := list(islice(numbered, size)):
        yield chunk


def _requests(
    loaded: Any, chunk: Sequence[tuple[int, dict[str, Any]]], sampling: Sampling, seed: int
) -> tuple[list[Request], dict[str, str]]:
    """The requests of a chunk, and for prompts that cannot be sampled from the reason."""
    requests: list[Request] = []
    refused: dict[str, str] = {}
    context = context_length(loaded.model)
    for ordinal, row in chunk:
        ids = render(loaded.tokenizer, row["prompt"], sampling.system)
        if len(ids) + sampling.max_tokens > context:
            refused[row["id"]] = f"prompt of {len(ids)} tokens and {sampling.max_tokens} to sample do not fit the context of {context}"
        else:
            seeds = tuple(_seed(seed, ordinal, sample) for sample in range(sampling.n))
            requests.append(Request(prompt_id=row["id"], prompt_token_ids=tuple(ids), seeds=seeds))
    return requests, refused


def _rows(
    out: Out,
    chunk: Sequence[tuple[int, dict[str, Any]]],
    completions: dict[tuple[str, int], Completion],
    refused: dict[str, str],
    policy: ModelRef,
    sampling: Sampling,
    seed: int,
) -> Iterator[dict[str, Any]]:
    for ordinal, row in chunk:
        for sample in range(sampling.n):
            common = {
                "id": out.row_id(ordinal * sampling.n + sample),
                "prompt_id": row["id"],
                "sample": sample,
                "policy": policy.version,
                "seed": _seed(seed, ordinal, sample),
            }
            if row["id"] in refused:
                yield common | {"text": "", "token_ids": [], "logprobs": [], "finish_reason": "refused", "note": refused[row["id"]]}
            else:
                one = completions[row["id"], sample]
                yield common | {
                    "text": one.text,
                    "token_ids": one.token_ids,
                    "logprobs": one.logprobs,
                    "finish_reason": one.finish_reason,
                }


def _seed(seed: int, ordinal: int, sample: int) -> int:
    return derive_seed(seed, "sample", ordinal, sample)
