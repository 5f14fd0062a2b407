"""How far training has taken the policy from where it began: the KL divergence, and what became of
the answers it learned from.

    measure_divergence(policy, initial, completions)   ->  metrics: KL(policy || initial), unbiased, in nats per answer
    measure_displacement(policy, start, pairs)         ->  metrics: log-probability gained by chosen and by rejected answers
Test: pytest tests/tasks/evaluation/test_divergence.py
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dapflow.storage import DatasetRef, ModelRef
from dapflow.storage.rows import PairRow
from dapflow.tasks.figures import Figure, mean, rows_of, share
from dapflow.tasks.models.chat import context_length, render
from dapflow.tasks.models.packed.groups import pair_groups, sampled_of
from dapflow.tasks.models.packed.lengths import fitting
from dapflow.tasks.models.packed.logps import reference_logps
from dapflow.tasks.models.policy import load_policy
from dapflow.tasks.step import Contents, Out, Work, contents_of, step

_NONE = "the policy gave no answer whose tokens are known"


def _scoring(read: Contents) -> Work:
    return Work(scored=round(2 * read.tokens))  # under both policies


@step(
    "metrics",
    title="measure KL of {policy} from {initial}",
    expects=lambda **_: 3,
    activity="measuring",
    work=lambda completions, **_: _scoring(contents_of(completions)),
)
def measure_divergence(
    out: Out,
    policy: ModelRef,
    initial: ModelRef,
    prompts: DatasetRef,
    completions: DatasetRef,
    system: str | None,
    chat_template: str | None,
    seed: int,
) -> None:
    """KL(policy || initial) over the first tokens of an answer, as many as were sampled at most;
    `completions` must be the policy's own, sampled at temperature 1 from the whole vocabulary.

    Rao-Blackwellised: at each token of a sampled answer the divergence of the two next-token
    distributions, over the whole vocabulary, summed over the answer (arXiv 2504.10637). Unbiased as
    the mean of log pi - log pi_0 over sampled tokens is, never below zero, and of less variance.
    The interval and `kl_to_initial_error` are over prompts.
    """
    new, old = load_policy(out.lake, policy), load_policy(out.lake, initial)
    texts = {row["id"]: row["prompt"] for row in out.lake.prompts(prompts)}
    rows = [
        (row["prompt_id"], tokens)
        for row in out.lake.completions(completions)
        if (tokens := row["token_ids"])
    ]
    found = defaultdict[str, list[tuple[float, int]]](list)
    for done, (prompt_id, answer) in enumerate(rows, start=1):
        prompt = render(new.tokenizer, texts[prompt_id], system, chat_template)
        divergences = token_divergences(new.model, old.model, prompt, answer)
        found[prompt_id].append((divergences.sum().item(), len(divergences)))
        out.progress(done, len(rows), "answers")
    out.write(0, list(rows_of(_kl(found, seed), policy.version, out.row_id)))


def _kl(found: Mapping[str, Sequence[tuple[float, int]]], seed: int) -> Iterator[Figure]:
    of_prompt = {prompt: fmean(value for value, _ in some) for prompt, some in found.items()}
    yield mean("kl_to_initial", of_prompt, seed, _NONE)
    if len(of_prompt) > 1:
        yield Figure(
            name="kl_to_initial_error", value=stdev(of_prompt.values()) / len(of_prompt) ** 0.5
        )
    tokens = sum(count for some in found.values() for _, count in some)
    if tokens:
        yield Figure(
            name="kl_to_initial_per_token",
            value=sum(value for some in found.values() for value, _ in some) / tokens,
        )


@torch.no_grad()
def token_divergences(
    new: PreTrainedModel, old: PreTrainedModel, prompt: Sequence[int], answer: Sequence[int]
) -> Tensor:
    """KL(new || old) of the next token's distribution at each token of the answer, fp32 [tokens],
    in nats.
    """
    ids = torch.tensor([[*prompt, *answer[:-1]]], device=new.device)

    def logps(model: PreTrainedModel) -> Tensor:
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=len(answer)).logits[
            0, -len(answer) :
        ]
        return logits.log_softmax(-1, dtype=torch.float32)

    p, q = logps(new), logps(old)
    return (p.exp() * (p - q)).sum(-1).clamp_min(0.0)  # below zero is rounding


@step(
    "metrics",
    title="measure what became of {most} pairs",
    expects=lambda **_: 3,
    activity="measuring",
    work=lambda pairs, most, **_: _scoring(
        replace(contents_of(pairs), rows=min(most, contents_of(pairs).rows))
    ),
)
def measure_displacement(
    out: Out,
    policy: ModelRef,
    start: ModelRef,
    pairs: DatasetRef,
    most: int,
    system: str | None,
    chat_template: str | None,
    seed: int,
) -> None:
    """By how much chosen and rejected answers have become likelier than under `start`, on at most
    `most` of the pairs trained on, and the share of pairs whose chosen answer has become less
    likely: likelihood displacement (arXiv 2410.08847)."""
    kept = [
        row
        for row in out.lake.pairs(pairs)
        if row["dropped"] is None and row["chosen"] and row["rejected"]
    ]
    rows = [kept[place * len(kept) // most] for place in range(most)] if len(kept) > most else kept
    changes = _changes(out, policy, start, rows, system, chat_template) if rows else {}
    why = "no pair that fits the context has both a chosen and a rejected answer"
    chosen, rejected = ({row: change[side] for row, change in changes.items()} for side in (0, 1))
    figures = [
        mean("chosen_logp_change", chosen, seed, why),
        mean("rejected_logp_change", rejected, seed, why),
        share("displaced_pairs", sum(change < 0 for change in chosen.values()), len(chosen), why),
    ]
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def _changes(
    out: Out,
    policy: ModelRef,
    start: ModelRef,
    rows: Sequence[PairRow],
    system: str | None,
    chat_template: str | None,
) -> dict[str, tuple[float, ...]]:
    """log pi_new - log pi_start of the chosen and the rejected answer of each pair that both can
    read, by the pair's id.
    """
    new, old = load_policy(out.lake, policy), load_policy(out.lake, start)
    context = min(context_length(model.model) for model in (new, old))
    groups, _ = fitting(
        pair_groups(new, rows, sampled_of(out.lake, rows), system, chat_template), context, least=2
    )
    sides = [list(reference_logps(model, groups)) for model in (new.model, old.model)]
    return {
        group.row_ids[0]: tuple(a - b for a, b in zip(*both, strict=True))
        for group, both in zip(groups, zip(*sides, strict=True), strict=True)
    }
