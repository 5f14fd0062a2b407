"""The new policy against the old one, on prompts neither was trained on, by a judge that did not
label the training pairs.

    evaluate(policy, Side(before), Side(after), ...)                  ->  metrics: all figures of an iteration
    evaluate_against(policy, baseline, Side(theirs), Side(ours), ...)  ->  metrics: the win rate against another baseline
Test: pytest tests/flows/test_measuring.py tests/tasks/evaluation/test_contests.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from dapflow.storage import DatasetRef, Lake, ModelRef, Ref
from dapflow.storage.rows import CompletionRow, VerdictRow
from dapflow.tasks.evaluation.contamination import left_out
from dapflow.tasks.evaluation.contests import (
    between_judges,
    by_comparison,
    by_scores,
    scores_of,
    why_undecided,
    win_rates_of,
)
from dapflow.tasks.evaluation.texts import described
from dapflow.tasks.figures import Figure, figure_of_row, paired, rows_of, share
from dapflow.tasks.metrics import METRICS, SIDES
from dapflow.tasks.step import Out, step

Answers = Sequence[CompletionRow]
Verdicts = Sequence[VerdictRow]
_STEADY = ("position_consistency", "first_place_wins")
_HONESTY = ("calibration_error", "calibration_slope")
_SAME_JUDGE = (
    "The judge that labelled the training pairs measures the result: it finds what it has taught. "
    "Set another evaluation.judge."
)
_NO_SCORES = "no judge scored the answers: it compares them, or there is none"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A policy's answers to the held-out prompts, and what judges say of each: the referee
    (`judged`), and the judge that labelled what was learned from (`reward`); None without scores.
    """

    answers: DatasetRef
    judged: DatasetRef | None
    reward: DatasetRef | None = None

    def refs(self, role: str) -> dict[str, Ref]:
        """What it holds, by their roles as parents: `before`, `judged_before`, `reward_before`."""
        held = {role: self.answers, f"judged_{role}": self.judged, f"reward_{role}": self.reward}
        return {name: ref for name, ref in held.items() if ref is not None}


@step(
    "metrics",
    title="evaluate",
    expects=lambda **_: len(METRICS) + 15,  # fifteen are there before and after
    activity="measuring",
)
def evaluate(
    out: Out,
    policy: ModelRef,
    before: Side,
    after: Side,
    seed: int,
    compared: DatasetRef | None = None,
    labelled_by: Sequence[ModelRef] = (),
    judged_by: Sequence[ModelRef] = (),
    same_judge: bool = False,
    overlap: DatasetRef | None = None,
    measured: Sequence[DatasetRef] = (),
) -> None:
    """All figures of an iteration, those of other steps that measured the same policy among them.
    One that cannot be had has no value, and says why.

    compared: verdicts of a judge that compares the two sides, in place of the scores of both
    labelled_by, judged_by: the models among the judges
    same_judge: whether one did both
    overlap: which held-out prompts are too like a training prompt to count
    measured: metrics about `policy` to take over
    """
    read = _Reader(out.lake, overlap)
    sides = read.answers(before.answers), read.answers(after.answers)
    judged = (read.verdicts(before.judged), read.verdicts(after.judged))
    rewards = (read.verdicts(before.reward), read.verdicts(after.reward))
    texts = {row["id"]: row["text"] for rows in sides for row in rows}
    verdicts = read.verdicts(compared) if compared is not None else [*judged[0], *judged[1]]
    decisions = by_comparison(verdicts) if compared is not None else by_scores(*judged)
    of_answers = [
        *win_rates_of(decisions, texts, seed, read.why(*sides, verdicts)),
        *between_judges(by_scores(*rewards), decisions, texts, seed),
        *_rewards("reward", *rewards, seed),
        *_rewards("judge_reward", *judged, seed),
        *described(*sides, seed),
        _invalid(verdicts),
    ]
    figures = [
        *(
            replace(one, note=read.why_nothing(*sides) or one.note) if one.value is None else one
            for one in of_answers
        ),
        *_about_judges(out.lake, labelled_by, judged_by, same_judge, compared),
        *read.overlaps(),
        *(figure for ref in measured for figure in _taken_over(out.lake, ref, policy)),
    ]
    for figure in figures:
        if figure.name == "same_judge" and figure.value:
            out.say(str(figure.note))
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


@step(
    "metrics",
    title="evaluate against {baseline}",
    expects=lambda **_: 3,
    activity="measuring",
)
def evaluate_against(
    out: Out,
    policy: ModelRef,
    baseline: str,
    theirs: Side,
    ours: Side,
    seed: int,
    contest: DatasetRef | None = None,
    overlap: DatasetRef | None = None,
) -> None:
    """The win rate of a policy's answers (`ours`) against a baseline's (`theirs`), as `evaluate`
    measures it; names end in `_vs_BASELINE`.
    """
    read = _Reader(out.lake, overlap)
    sides = (read.answers(theirs.answers), read.answers(ours.answers))
    judged = (read.verdicts(theirs.judged), read.verdicts(ours.judged))
    texts = {row["id"]: row["text"] for rows in sides for row in rows}
    verdicts = read.verdicts(contest) if contest is not None else [*judged[0], *judged[1]]
    decisions = by_comparison(verdicts) if contest is not None else by_scores(*judged)
    figures = win_rates_of(decisions, texts, seed, read.why(*sides, verdicts), baseline)
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


class _Reader:
    """Rows of datasets, less those of held-out prompts that do not count."""

    def __init__(self, lake: Lake, overlap: DatasetRef | None) -> None:
        self._lake = lake
        self._overlap = [] if overlap is None else lake.metrics(overlap)
        self._left_out = left_out(self._overlap)

    def answers(self, ref: DatasetRef) -> Answers:
        """The completions on one side."""
        return [
            row for row in self._lake.completions(ref) if row["prompt_id"] not in self._left_out
        ]

    def verdicts(self, ref: DatasetRef | None) -> Verdicts:
        """Those on one side, or on both; none where nobody judged."""
        rows = [] if ref is None else self._lake.verdicts(ref)
        return [row for row in rows if row["prompt_id"] not in self._left_out]

    def overlaps(self) -> Iterator[Figure]:
        """How many prompts resemble what was trained on, if anybody has looked."""
        for row in self._overlap:
            if row["name"] in METRICS:
                yield Figure(name=row["name"], value=row["value"], note=row["note"])

    def why(self, before: Answers, after: Answers, verdicts: Verdicts) -> str:
        """Why there is no decision, where there is none."""
        return self.why_nothing(before, after) or why_undecided([*before, *after], verdicts)

    def why_nothing(self, before: Answers, after: Answers) -> str | None:
        """Why there is no answer at all, where every held-out prompt was left out."""
        if before or after or not self._left_out:
            return None
        return (
            f"all {len(self._left_out)} held-out prompts were left out, for they repeat training "
            "prompts: hold out others"
        )


def _rewards(name: str, before: Verdicts, after: Verdicts, seed: int) -> Iterator[Figure]:
    """The mean score of each side, and what each prompt has gained."""
    sides = [scores_of(rows) for rows in (before, after)]
    why = "no answer was scored" if before or after else _NO_SCORES
    for side, scores in zip(SIDES, sides, strict=True):
        values = [value for of_prompt in scores.values() for value in of_prompt]
        yield Figure(
            name=f"{name}_{side}",
            value=fmean(values) if values else None,
            note=None if values else why,
        )
    old, new = ({prompt: fmean(values) for prompt, values in scores.items()} for scores in sides)
    yield paired(
        f"{name}_gain",
        old,
        new,
        seed,
        "no prompt was scored on both sides" if before or after else _NO_SCORES,
    )


def _invalid(verdicts: Verdicts) -> Figure:
    asked = [verdict for verdict in verdicts if verdict["outcome"] != "refused"]
    return share(
        "invalid_rate",
        sum(verdict["outcome"] in ("invalid", "over_budget") for verdict in asked),
        len(asked),
        "nothing was judged",
    )


def _about_judges(
    lake: Lake,
    labelled_by: Sequence[ModelRef],
    judged_by: Sequence[ModelRef],
    same: bool,
    compared: DatasetRef | None,
) -> Iterator[Figure]:
    """Whether they are one and the same, how honest their probabilities are, and whether places
    sway the one that compares.
    """
    yield Figure(name="same_judge", value=float(same), note=_SAME_JUDGE if same else None)
    for role, models in (("training", labelled_by), ("judge", judged_by)):
        for row in lake.metrics(models[0]) if len(models) == 1 else []:
            if row["name"] in _HONESTY:
                low, high = row["low"], row["high"]
                yield Figure(name=f"{role}_{row['name']}", value=row["value"], low=low, high=high)
            if row["name"] in _STEADY and role == "judge":
                yield Figure(name=row["name"], value=row["value"], low=row["low"], high=row["high"])
    if compared is not None:
        for row in lake.metrics(compared):
            yield Figure(name=row["name"], value=row["value"], low=row["low"], high=row["high"])


def _taken_over(lake: Lake, ref: DatasetRef, policy: ModelRef) -> Iterator[Figure]:
    for row in lake.metrics(ref):
        if row["subject"] == policy.version and row["step"] is None:
            yield figure_of_row(row)
