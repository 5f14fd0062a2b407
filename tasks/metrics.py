"""The figures that say what came of an iteration: their names, units and what they mean.

A name ends in `_before` or `_after` where it is about one side's answers, and in `_vs_BASELINE`
where the other side is not the policy that the iteration began with. Imports neither torch nor
prefect. Test: pytest tests/tasks/evaluation/test_contests.py tests/tasks/evaluation/test_texts.py
"""

from dataclasses import dataclass
from typing import Literal

SIDES = ("before", "after")
_VERSUS = "_vs_"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What a figure is. better: the direction that is good news; None where neither is. unit:
    `share of ...` of a share, 0 to 1, and of a difference of two."""

    label: str
    unit: str
    better: Literal["higher", "lower"] | None = None


METRICS: dict[str, Metric] = {
    "win_rate": Metric(label="win rate", unit="share of prompts", better="higher"),
    "judged_prompts": Metric(label="prompts judged on both sides", unit="prompts"),
    "length_controlled_win_rate": Metric(
        label="length-controlled win rate", unit="share of prompts", better="higher"
    ),
    "training_win_rate": Metric(label="win rate by the training judge", unit="share of prompts"),
    "win_rate_gap": Metric(
        label="training judge's win rate less this one's", unit="share of prompts", better="lower"
    ),
    "reward": Metric(label="reward (training judge)", unit="judge's score", better="higher"),
    "reward_gain": Metric(
        label="reward gained (training judge)", unit="judge's score", better="higher"
    ),
    "judge_reward": Metric(
        label="reward (evaluation judge)", unit="judge's score", better="higher"
    ),
    "judge_reward_gain": Metric(
        label="reward gained (evaluation judge)", unit="judge's score", better="higher"
    ),
    "kl_to_initial": Metric(label="KL to the initial policy", unit="nats per answer"),
    "kl_to_initial_error": Metric(label="standard error of that KL", unit="nats per answer"),
    "kl_to_initial_per_token": Metric(
        label="KL to the initial policy per token", unit="nats per token"
    ),
    "chosen_logp_change": Metric(
        label="log-probability gained by chosen answers", unit="nats per answer", better="higher"
    ),
    "rejected_logp_change": Metric(
        label="log-probability gained by rejected answers", unit="nats per answer"
    ),
    "displaced_pairs": Metric(
        label="pairs whose chosen answer lost probability", unit="share of pairs", better="lower"
    ),
    "length": Metric(label="length", unit="tokens"),
    "length_p10": Metric(label="length, 10 % are shorter", unit="tokens"),
    "length_p50": Metric(label="length, half are shorter", unit="tokens"),
    "length_p90": Metric(label="length, 90 % are shorter", unit="tokens"),
    "length_growth": Metric(label="growth of the mean length", unit="share of the length before"),
    "truncated": Metric(
        label="cut off at token limit", unit="share of completions", better="lower"
    ),
    "refusals": Metric(label="answers that decline", unit="share of completions", better="lower"),
    "not_answered": Metric(
        label="empty or refused before sampling", unit="share of completions", better="lower"
    ),
    "distinct_1": Metric(label="distinct words", unit="share of words"),
    "distinct_2": Metric(label="distinct pairs of words", unit="share of bigrams"),
    "distinct_3": Metric(label="distinct triples of words", unit="share of trigrams"),
    "self_bleu": Metric(label="self-BLEU", unit="BLEU-4, 0 to 1", better="lower"),
    "invalid_rate": Metric(
        label="answers that the judge gave no verdict on",
        unit="share of completions",
        better="lower",
    ),
    "judge_agreement": Metric(
        label="training and evaluation judge agree", unit="share of pairs", better="higher"
    ),
    "judge_kappa": Metric(
        label="the same beyond chance (Cohen's kappa)", unit="kappa, -1 to 1", better="higher"
    ),
    "position_consistency": Metric(
        label="both orders name the same answer", unit="share of comparisons", better="higher"
    ),
    "first_place_wins": Metric(label="the first place wins", unit="share of answers"),
    "training_calibration_error": Metric(
        label="calibration error of the training judge", unit="probability", better="lower"
    ),
    "judge_calibration_error": Metric(
        label="calibration error of the evaluation judge", unit="probability", better="lower"
    ),
    "training_calibration_slope": Metric(
        label="calibration slope of the training judge", unit="log-odds per unit of score"
    ),
    "judge_calibration_slope": Metric(
        label="calibration slope of the evaluation judge", unit="log-odds per unit of score"
    ),
    "same_judge": Metric(
        label="evaluated by the judge that labelled", unit="1: yes, 0: no", better="lower"
    ),
    "contaminated_prompts": Metric(
        label="held-out prompts left out as known from training", unit="prompts", better="lower"
    ),
    "similar_prompts": Metric(
        label="held-out prompts that resemble a training prompt", unit="prompts", better="lower"
    ),
    "first_sweep_share": Metric(
        label="accepted in the first sweep", unit="share of accepted candidates", better="higher"
    ),
    "effective_candidates": Metric(
        label="candidates that the tilted policy rests on", unit="candidates per prompt"
    ),
    "tilt_reached": Metric(
        label="way to the tilted policy's mean reward", unit="share of the way", better="higher"
    ),
    "people_prompts": Metric(label="prompts that people labelled or answered", unit="prompts"),
    "people_share": Metric(label="trained on by people's labels", unit="share of rows"),
    "own_share": Metric(
        label="trained on and sampled by the policy itself", unit="share of answers"
    ),
    "mean_lag": Metric(label="mean age of its own samples", unit="optimiser steps", better="lower"),
    "trained_rows": Metric(label="rows trained on", unit="rows"),
    "renewed_share": Metric(
        label="trained on by labels of this iteration's judge", unit="share of rows"
    ),
    "tokens_sampled": Metric(label="tokens sampled for training", unit="tokens"),
    "verdicts": Metric(label="verdicts asked for in training", unit="verdicts"),
    "api_answers": Metric(label="answers and verdicts needed of an API", unit="answers"),
    "api_calls": Metric(label="calls of that API", unit="calls"),
    "api_usd": Metric(label="paid for them", unit="usd"),
    "models_in_memory": Metric(label="models in memory while training", unit="models"),
    "model_bytes": Metric(label="their weights", unit="bytes"),
    "exact_answers": Metric(
        label="exact-answer tasks solved", unit="share of tasks", better="higher"
    ),
    "exact_answers_change": Metric(
        label="exact-answer tasks gained", unit="share of tasks", better="higher"
    ),
    "instructions_followed": Metric(
        label="constraints of instructions followed", unit="share of constraints", better="higher"
    ),
    "instructions_followed_change": Metric(
        label="constraints of instructions gained", unit="share of constraints", better="higher"
    ),
    "instructions_whole": Metric(
        label="instructions followed in full",
        unit="share of instructions",
        better="higher",
    ),
    "instructions_whole_change": Metric(
        label="instructions gained in full",
        unit="share of instructions",
        better="higher",
    ),
    "turn_1_win_rate": Metric(
        label="win rate, first turn of two", unit="share of tasks", better="higher"
    ),
    "turn_1_reward": Metric(
        label="reward, first turn of two (evaluation judge)", unit="judge's score", better="higher"
    ),
    "turn_1_reward_gain": Metric(
        label="reward gained, first turn of two", unit="judge's score", better="higher"
    ),
    "turn_2_win_rate": Metric(
        label="win rate, second turn of two", unit="share of tasks", better="higher"
    ),
    "turn_2_reward": Metric(
        label="reward, second turn of two (evaluation judge)", unit="judge's score", better="higher"
    ),
    "turn_2_reward_gain": Metric(
        label="reward gained, second turn of two", unit="judge's score", better="higher"
    ),
}

AS_A_JUDGE = {
    "pairwise_agreement": Metric(
        label="as a judge: agrees with people", unit="share of decided pairs", better="higher"
    ),
    "agreement_change": Metric(
        label="as a judge: agrees more than an iteration before",
        unit="share of decided pairs",
        better="higher",
    ),
    "decided": Metric(label="as a judge: orders the two", unit="share of pairs"),
    "unread": Metric(
        label="as a judge: says what cannot be read", unit="share of pairs", better="lower"
    ),
    "exact_match": Metric(
        label="as a judge: whole orders that are people's", unit="share of prompts", better="higher"
    ),
    "spearman": Metric(
        label="as a judge: Spearman's correlation with people", unit="correlation", better="higher"
    ),
    "kendall": Metric(
        label="as a judge: Kendall's correlation with people", unit="correlation", better="higher"
    ),
    "five_best": Metric(
        label="as a judge: highest scores that went to the best",
        unit="share of answers with the highest score",
        better="higher",
    ),
}
"""Of a policy that judges (tasks/evaluation/judge_quality.py)."""
_KNOWN = METRICS | AS_A_JUDGE


def metric_of(name: str) -> Metric:
    """What the figure of that name is, whichever side or baseline it is about. One that is not
    listed is shown under its own name.
    """
    base = base_name(name)
    return _KNOWN.get(base) or Metric(label=base.replace("_", " "), unit="")


def label_of(name: str) -> str:
    """A figure's name as words, with the baseline it is against."""
    own, _, baseline = name.partition(_VERSUS)
    known = _KNOWN.get(base_name(name))
    label = known.label if known else own.replace("_", " ").replace("/", ": ")
    return f"{label}, against {baseline}" if baseline else label


def base_name(name: str) -> str:
    """The name without its side and without its baseline."""
    return name.partition(_VERSUS)[0].removesuffix("_before").removesuffix("_after")


def versus(name: str, baseline: str) -> str:
    """The name of a figure against that baseline."""
    return f"{name}{_VERSUS}{baseline}"
