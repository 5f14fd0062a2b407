"""The seed data of Self-Rewarding (Yuan et al. 2024, arXiv 2401.10020, section 2.1): people's best
answers, and judgements that agree with people. Both are rows of `pairs` without `rejected`: what a
likelihood loss learns from.

    instruction_data(preferences)  ->  pairs (IFT): prompt, first-ranked answer
    evaluation_data(policy, preferences, EvaluationData(), seed, sampler)  ->  pairs (EFT): judge's question, judgement
preferences: pairs of people's, `load_preferences(...)`. What judges afterwards takes other prompts:
another part of the same source. Test: pytest tests/tasks/pairing/test_self_rewarding.py
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef
from dapflow.tasks.judging.judges.templates import check_places, fill, template_text
from dapflow.tasks.judging.replies.parsing import parse_score
from dapflow.tasks.prompts.row import prompt_row
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.sampling.engines.sampler import Sampler
from dapflow.tasks.sampling.sample import sample
from dapflow.tasks.seeds import generator
from dapflow.tasks.step import Contents, Out, Work, contents_of, step
from dapflow.tasks.step.work import CHARACTERS_PER_TOKEN

_TEMPLATE = "additive-v1"
Row = Mapping[str, Any]


class EvaluationData(BaseModel):
    """How judgements are come by, and which are learned from."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    template: str = Field(
        default=_TEMPLATE,
        description="a judge's template that asks for a score from 0 to 5, shipped or a text file",
    )
    sampling: Sampling = Field(
        default=Sampling(n=1, temperature=0.7, top_p=0.9, max_tokens=160),
        description="`n` judges go over all answers to a prompt; the first who agrees with people is kept",
    )
    prompts: int = Field(
        default=64, ge=1, description="of people's, at most, the answers to which are judged"
    )
    thin: bool = Field(
        default=True,
        description="of the commonest score no more are kept than of the second commonest",
    )


@dataclass(kw_only=True)
class Ranked:
    """People's answers to a prompt in the order of their appearance, and what people said of them.

    sources: of each answer the id of the first pair that it stands in; better: (place, place) of a
    better and a worse one.
    """

    prompt: str
    answers: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    better: list[tuple[int, int]] = field(default_factory=list)

    def place(self, answer: str, source: str) -> int:
        """Where an answer stands; at the end, if it is a new one."""
        if answer not in self.answers:
            self.answers.append(answer)
            self.sources.append(source)
        return self.answers.index(answer)

    @property
    def first(self) -> int | None:
        """The answer that no other was preferred to, the first of several; None when people
        contradict one another on all.
        """
        beaten = {worse for _, worse in self.better}
        return next((place for place in range(len(self.answers)) if place not in beaten), None)

    def agrees(self, scores: Sequence[float]) -> bool:
        """Whether scores of all answers say what people said; equal scores do not."""
        return all(scores[better] > scores[worse] for better, worse in self.better)


def ranked(pairs: Sequence[Row]) -> list[Ranked]:
    """People's pairs by prompt, in their order. Dropped ones (ties, identical answers) say nothing."""
    found: dict[str, Ranked] = {}
    for row in pairs:
        if row["dropped"] is None:
            one = found.setdefault(row["prompt"], Ranked(prompt=row["prompt"]))
            one.better.append(
                (one.place(row["chosen"], row["id"]), one.place(row["rejected"], row["id"]))
            )
    return list(found.values())


def _imitating(prompts: DatasetRef, answer_tokens: float) -> Work:
    """A row for each prompt at most, with one answer."""
    return Work(makes=replace(contents_of(prompts), answer_tokens=answer_tokens))


@step(
    "pairs",
    title="best answers in {preferences.rows} preferences",
    expects=lambda preferences: preferences.rows,
    activity="pairing",
    work=lambda preferences: _imitating(preferences, contents_of(preferences).answer_tokens / 2),
)
def instruction_data(out: Out, preferences: DatasetRef) -> None:
    """For each prompt the answer that people rank first (the paper's IFT data); dropped where they
    contradict one another.
    """
    rows = []
    for n, one in enumerate(ranked(out.lake.rows_of(preferences))):
        place, dropped = (0, "contradictory") if one.first is None else (one.first, None)
        row = {
            "id": out.row_id(n),
            "prompt": one.prompt,
            "chosen": one.answers[place],
            "source": one.sources[place],
        }
        rows.append(row | {"dropped": dropped})
    out.write(0, rows)


def evaluation_data(
    policy: ModelRef, preferences: DatasetRef, settings: EvaluationData, seed: int, sampler: Sampler
) -> DatasetRef:
    """Judgements by `policy` (the paper's: trained on the instruction data) whose order is people's
    (the paper's EFT data).

    Raises UserError for a template that does not fit.
    """
    template = template_text(settings.template)
    check_places(settings.template, template, {"prompt", "completion"})
    questions = judge_questions(preferences, template, settings.prompts)
    judgements = sample(policy, questions, settings.sampling, seed, sampler)
    return agreeing_judgements(
        preferences, questions, judgements, settings.sampling.n, settings.thin, seed
    )


def _asking(preferences: DatasetRef, template: str, most: int) -> Work:
    """A question holds the template, people's prompt and one of their answers."""
    rows, pairs = 2 * min(preferences.rows, most), contents_of(preferences)
    tokens = len(template) / CHARACTERS_PER_TOKEN + pairs.prompt_tokens + pairs.answer_tokens / 2
    return Work(makes=Contents(rows=rows, prompts=rows, prompt_tokens=tokens))


@step(
    "prompts",
    title="questions to a judge on {preferences.rows} preferences",
    expects=lambda preferences, most, **_: 2 * min(preferences.rows, most),
    activity="arranging",
    work=_asking,
)
def judge_questions(out: Out, preferences: DatasetRef, template: str, most: int) -> None:
    """A judge's question for every answer to each of the first `most` prompts. template: text with
    {prompt} and {completion}.
    """
    rows = []
    for one in ranked(out.lake.rows_of(preferences))[:most]:
        for answer, source in zip(one.answers, one.sources, strict=True):
            text = fill(template, prompt=one.prompt, completion=answer)
            rows.append(prompt_row(out.row_id(len(rows)), text, source, split="train"))
    out.write(0, rows)


@step(
    "pairs",
    title="judgements of {judgements.rows} that agree with people",
    expects=lambda judgements, **_: judgements.rows,
    activity="reading",
    work=lambda questions, judgements, **_: _imitating(
        questions, contents_of(judgements).answer_tokens
    ),
)
def agreeing_judgements(
    out: Out,
    preferences: DatasetRef,
    questions: DatasetRef,
    judgements: DatasetRef,
    n: int,
    thin: bool,
    seed: int,
) -> None:
    """The judgements (`n` of each question) of the first judge whose scores of a prompt's answers
    have people's order.

    The others stay with the reason: invalid, truncated or refused; incomplete (another answer got
    no score); disagrees; redundant (a judge before agreed); common_score.
    """
    asked = out.lake.rows_of(questions)
    of_question: dict[str, list[Row]] = defaultdict(list)
    for row in out.lake.rows_of(judgements):
        of_question[row["prompt_id"]].append(row)
    rows, scores = list[dict[str, Any]](), list[float | None]()
    waiting = iter(asked)
    for one in ranked(out.lake.rows_of(preferences)):
        if not (questioned := list(islice(waiting, len(one.answers)))):
            break
        agreed = False
        for number in range(n):
            judge = [of_question[question["id"]][number] for question in questioned]
            read = [score_of(row) for row in judge]
            reasons = _reasons(one, read, agreed)
            agreed |= reasons == [None] * len(reasons)
            for question, row, (score, _), reason in zip(
                questioned, judge, read, reasons, strict=True
            ):
                rows.append(
                    {
                        "id": out.row_id(len(rows)),
                        "prompt_id": question["id"],
                        "chosen_id": row["id"],
                        "prompt": question["prompt"],
                    }
                    | {"chosen": row["text"], "source": question["source"], "dropped": reason}
                )
                scores.append(score)
    if thin:
        _thin(rows, scores, seed)
    counts = Counter(row["dropped"] or "kept" for row in rows)
    out.say(
        f"judgements: {', '.join(f'{count} {reason}' for reason, count in counts.most_common())}"
    )
    out.write(0, rows)


def score_of(judgement: Row) -> tuple[float | None, str | None]:
    """The score of a row of `completions`, or why there is none."""
    if judgement["finish_reason"] != "stop":
        return None, "refused" if judgement["finish_reason"] == "refused" else "truncated"
    score = parse_score(judgement["text"])
    return score, "invalid" if score is None else None


def _reasons(
    one: Ranked, read: Sequence[tuple[float | None, str | None]], agreed: bool
) -> list[str | None]:
    """Why each judgement of one judge on a prompt's answers is not learned from, or None."""
    scores = [score for score, _ in read if score is not None]
    if len(scores) < len(read):
        return [reason or "incomplete" for _, reason in read]
    return ["redundant" if agreed else None if one.agrees(scores) else "disagrees"] * len(read)


def _thin(rows: Sequence[dict[str, Any]], scores: Sequence[float | None], seed: int) -> None:
    """Drop as many of the kept judgements with the commonest score, drawn at random, as it has more
    than the second commonest.
    """
    kept = [place for place, row in enumerate(rows) if row["dropped"] is None]
    common = Counter(
        round(score) for place in kept if (score := scores[place]) is not None
    ).most_common(2)
    if len(common) < 2:
        return
    (score, count), (_, second) = common
    candidates = [place for place in kept if round(scores[place] or 0) == score]
    for place in generator(seed, "thin").sample(candidates, count - second):
        rows[place]["dropped"] = "common_score"
