"""Sequence log-probabilities of the answers of groups under a model, exact, without padding where
the architecture allows.

`pick_scorer` compares the packed layout with a plain forward on a small probe and falls back, with
a warning, to padded rows where they differ. Values in, tensors out. Test: pytest
tests/tasks/models/packed/test_logps.py
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel

from dapflow.tasks.models.packed.attention import shared_prefix
from dapflow.tasks.models.packed.batches import Group, Packed, pack
from dapflow.tasks.models.packed.head import Draw, TokenScores, completion_logps, draw_tokens


class Scorer(Protocol):
    def __call__(
        self, model: PreTrainedModel, groups: Sequence[Group], draw: Draw | None = None
    ) -> TokenScores:
        """Of every completion token, answer after answer, group after group: fp32 log-probs [1,
        tokens] and entropies [tokens].

        With `draw`, the log-probs are [2, tokens]: the second row is of the token that it draws at
        each place.
        """
        ...


# How far packed and plain log-probs may lie apart, as a share of what losing the prompt does to
# them.
TOLERANCE = {torch.float32: 0.01, torch.float64: 0.01}
HALF_PRECISION_TOLERANCE = 0.2


def sequence_logps(model: PreTrainedModel, groups: Sequence[Group], scorer: Scorer) -> list[Tensor]:
    """log p(answer | prompt) of each group, fp32 [answers]: the sum over the answer's tokens, its
    end of sequence included.

    Gradients flow unless the caller turned them off. All groups share one forward, so pass what
    fits in memory (see `microbatches`).
    """
    return sum_by_answer(scorer(model, groups).logps[0], groups)


def sum_by_answer(tokens: Tensor, groups: Sequence[Group]) -> list[Tensor]:
    """Values of every completion token, [tokens], summed over each answer: [answers] of each group."""
    lengths = [len(answer) for group in groups for answer in group.answers]
    sums = torch.stack([answer.sum() for answer in tokens.split(lengths)])
    return list(sums.split([len(group.answers) for group in groups]))


@torch.no_grad()
def reference_logps(model: PreTrainedModel, groups: Iterable[Group]) -> Iterator[tuple[float, ...]]:
    """For each group its `reference`: log p(answer | prompt) under `model`.

    Each group is scored by itself: then its values are the same to the bit whichever others are
    scored beside it.
    """
    model.eval()  # dropout off
    scorer = pick_scorer(model)
    for group in groups:
        yield tuple(sequence_logps(model, [group], scorer)[0].tolist())


def packed_token_logps(
    model: PreTrainedModel, groups: Sequence[Group], draw: Draw | None = None
) -> TokenScores:
    """The `Scorer` without padding: one row, shared prompts, the head at completion positions only."""
    hidden, packed = packed_hidden(model, groups)
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear), "pick_scorer has made sure of it"
    targets = [packed.target]
    if draw is not None:
        targets.append(
            draw_tokens(draw, hidden, packed.target, head.weight, head.bias, _softcap(model))
        )
    logps, entropy = completion_logps(
        hidden.repeat(len(targets), 1), torch.cat(targets), head.weight, head.bias, _softcap(model)
    )
    return TokenScores(logps.view(len(targets), -1), entropy[: len(packed.target)])


def packed_hidden(model: PreTrainedModel, groups: Sequence[Group]) -> tuple[Tensor, Packed]:
    """The hidden states that each completion token is predicted from, [tokens, width], answer after
    answer; and the row they come from.
    """
    packed = pack(groups, model.device)
    with shared_prefix(model):
        outputs = model.get_decoder()(
            input_ids=packed.input_ids,
            position_ids=packed.position_ids,
            use_cache=False,
            segments=packed.segments,
            masks={},
        )
    return outputs.last_hidden_state[0].index_select(0, packed.source), packed


def padded_token_logps(
    model: PreTrainedModel, groups: Sequence[Group], draw: Draw | None = None
) -> TokenScores:
    """The `Scorer` for every causal model: a right-padded row for each answer, through the model's
    own forward.
    """
    rows = [(group.prompt, answer) for group in groups for answer in group.answers]
    inputs = [torch.tensor(prompt + answer[:-1], device=model.device) for prompt, answer in rows]
    found, entropies = list[Tensor](), list[Tensor]()
    for row, (prompt, answer) in zip(_padded_logits(model, inputs), rows, strict=True):
        scores = row[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
        target = torch.tensor(answer, device=model.device)
        targets = [target] if draw is None else [target, draw(scores.detach(), target)]
        logps = scores.log_softmax(-1, dtype=torch.float32)
        found.append(logps.gather(1, torch.stack(targets, dim=1)))
        entropies.append(torch.special.entr(logps.detach().exp()).sum(dim=1))
    return TokenScores(torch.cat(found).T, torch.cat(entropies))


def _padded_logits(model: PreTrainedModel, rows: Sequence[Tensor]) -> Iterator[Tensor]:
    if _scaled_by_length(model):
        yield from (model(input_ids=row[None], use_cache=False).logits[0] for row in rows)
        return
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    yield from model(
        input_ids=pad_sequence(list(rows), batch_first=True), attention_mask=mask, use_cache=False
    ).logits


def _scaled_by_length(model: PreTrainedModel) -> bool:
    """Whether a row's rotary frequencies depend on the longest row beside it: then each has to be
    alone, as it is when it is sampled.
    """
    parameters: Any = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [parameters] if "rope_type" in parameters else list(parameters.values())
    return any(
        isinstance(kind, dict) and kind.get("rope_type") in ("longrope", "dynamic")
        for kind in kinds
    )


def attention_of(scorer: Scorer, model: PreTrainedModel) -> AbstractContextManager[None]:
    """The attention that a scorer's forward runs in: layers that are computed again in a backward
    pass need it there too.
    """
    return shared_prefix(model) if scorer is packed_token_logps else nullcontext()


def pick_scorer(model: PreTrainedModel) -> Scorer:
    """`packed_token_logps` where it gives what a plain forward gives, else `padded_token_logps`,
    with a warning that says why.
    """
    reason = _why_not_packed(model)
    if reason is None:
        return packed_token_logps
    warnings.warn(
        f"{type(model).__name__} cannot be trained without padding ({reason}); using padded rows, "
        "which are slower and need more memory.",
        stacklevel=2,
    )
    return padded_token_logps


@torch.no_grad()
def _why_not_packed(model: PreTrainedModel) -> str | None:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ()) - {
        "full_attention",
        "sliding_attention",
    }
    if kinds:
        return f"it has {', '.join(sorted(kinds))} layers"
    if _scaled_by_length(model):
        return "its positions are scaled by the longest row beside them"
    if type(model.get_output_embeddings()) is not torch.nn.Linear:
        return "its output head is not a plain linear layer"
    groups = _probe(config.vocab_size)
    apart = [
        Group(prompt=g.prompt, answers=(answer,), row_ids=g.row_ids)
        for g in groups
        for answer in g.answers
    ]
    promptless = [Group(prompt=g.prompt[-1:], answers=g.answers, row_ids=g.row_ids) for g in apart]
    plain = padded_token_logps(model, apart).logps
    scale = (plain - padded_token_logps(model, promptless).logps).abs().max()
    try:
        packed = packed_token_logps(model, groups).logps
    except Exception as error:  # whatever an architecture raises, it cannot be packed
        return f"{type(error).__name__}: {error}"
    share = ((packed - plain).abs().max() / scale).item()
    allowed = TOLERANCE.get(model.dtype, HALF_PRECISION_TOLERANCE)
    # a share that is not a number is left to the trainer, which names the rows
    return (
        f"its packed log-probabilities differ from the plain ones by {share:.2g} of the prompt's "
        "effect"
        if share > allowed
        else None
    )


def _probe(vocabulary: int) -> list[Group]:
    def ids(start: int, count: int) -> tuple[int, ...]:
        return tuple((start + 7919 * i) % vocabulary for i in range(count))

    return [
        Group(prompt=ids(11, 9), answers=(ids(23, 6), ids(37, 8)), row_ids=("probe",)),
        Group(prompt=ids(41, 5), answers=(ids(53, 7), ids(67, 4), ids(79, 1)), row_ids=("probe",)),
    ]


def _softcap(model: PreTrainedModel) -> float | None:
    return getattr(
        model.config.get_text_config(), "final_logit_softcapping", None
    )  # a field of the Gemma configs only
