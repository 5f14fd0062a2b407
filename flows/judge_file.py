"""The flow behind `dapflow judge`: a file of completions or pairs, and any judge -> the same rows
with its verdicts.

judge_file(file, ["judge=shorter"], lake)  ->  {"rows": [...], "outcomes": {...}, "calls": ..., "usd": ...}
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow

from dapflow.flows.judging.labelling import contest, scored
from dapflow.flows.judging.seating import OfRun, check_judge
from dapflow.flows.recipes.changes import change
from dapflow.flows.recipes.methods import SFT_SAMPLE_RANK
from dapflow.flows.report.judge_figures import with_members
from dapflow.storage import DatasetRef, Lake, ModelRef, UserError
from dapflow.storage.ledger import spent_on
from dapflow.tasks.judging.combination import vote
from dapflow.tasks.judging.judges.base import Verdict, verdict_of_row
from dapflow.tasks.judging.spec import Seated
from dapflow.tasks.prompts.answer_file import (
    Sheet,
    answers_of_sheet,
    prompts_of_sheet,
    read_sheet,
    sheet_of,
)
from dapflow.tasks.step import use_lake
from dapflow.tasks.step.shards import use_shards

_NOBODY = ModelRef("models", "", 0)  # no policy has part in it


@flow(name="judge", flow_run_name="judge {file}", persist_result=False)
def judge_file(
    file: str, settings: list[str], lake: str = "lake", column: str | None = None
) -> dict[str, Any]:
    """Judge every row. settings: `judge=...` and `judge.KEY=...`, as of a recipe; column: what the
    verdict's column is to be called.

    Of pairs it is the probability that the first is better, of completions the score; None where
    there is none, and `outcome` and `note` say why. Raises UserError for what the user can put
    right.
    """
    sheet = sheet_of(Path(file))
    names = columns_of(sheet, column)
    with Lake(lake) as opened, use_lake(opened):
        who = who_judges(sheet, settings)
        with use_shards(change(SFT_SAMPLE_RANK, settings).shards):
            verdicts = _judged(sheet, who)
        found = (
            _pairs(opened, verdicts)
            if len(sheet.columns) == 2
            else [(verdict_of_row(row), {}) for row in opened.verdicts(verdicts["scored"])]
        )
        rows = [
            dict(record.fields)
            | dict(zip(names, (verdict.score, verdict.outcome, verdict.note), strict=True))
            | {f"{names[0]}_{key}": value for key, value in more.items()}
            for record, (verdict, more) in zip(read_sheet(Path(file)), found, strict=True)
        ]
        calls, tokens, usd = spent_on(
            opened, with_members(opened, {ref.version for ref in verdicts.values()})
        )
        versions = {name: f"verdicts@{ref.version}" for name, ref in verdicts.items()}
    outcomes = dict(sorted(Counter(verdict.outcome for verdict, _ in found).items()))
    costs = {"calls": calls, "tokens": tokens, "usd": usd}
    return {
        "file": file,
        "judge": str(who),
        "columns": names,
        "versions": versions,
        "outcomes": outcomes,
        **costs,
        "rows": rows,
    }


def columns_of(sheet: Sheet, column: str | None) -> tuple[str, str, str]:
    """What the new columns are called. Raises UserError where the file has one of them already."""
    names = (
        (column, f"{column}_outcome", f"{column}_note")
        if column
        else ("score" if len(sheet.columns) == 1 else "preference", "outcome", "note")
    )
    known = {field for record in read_sheet(Path(sheet.path)) for field in record.fields}
    there = [name for name in names if name in known]
    if there:
        raise UserError(
            f"{sheet} has a column {there[0]} already: name the new ones with --column NAME."
        )
    return names


def who_judges(sheet: Sheet, settings: Sequence[str]) -> Seated:
    """The judge that the settings name. Raises UserError for one that would first have to be
    trained, or does not suit the file.
    """
    if wrong := [one for one in settings if not one.startswith(("judge=", "judge.", "shards."))]:
        raise UserError(
            f"--set {wrong[0]}: only keys that begin with judge. or shards. can be set here."
        )
    recipe = change(SFT_SAMPLE_RANK, settings)
    if recipe.judge is None or not recipe.judge.ready:
        raise UserError(
            "Who is to judge? --judge with a program (shorter, ./mine.py:score, ...) or a reward "
            "model of the lake (models@VERSION: `dapflow datasets --kind models`), or --judge llm "
            "--set judge.endpoint.model=... for an LLM."
        )
    check_judge(recipe, recipe.judge, labels=False)
    if recipe.judge.compares_with_a_baseline:
        raise UserError(
            "A pairwise ranker needs a baseline answer to each prompt, which a file does not have: "
            "take a reward model."
        )
    run = OfRun(recipe=recipe, policy=_NOBODY, initial=_NOBODY, part="reward")
    who = recipe.judge.seated(run)
    if who.compares and len(sheet.columns) == 1:
        raise UserError(
            f"The judge {who} compares two answers, and {sheet} has one a row: give pairs, or a "
            "judge that scores."
        )
    return who


def _judged(sheet: Sheet, who: Seated) -> dict[str, DatasetRef]:
    """The verdicts: on both sides together, on each side, or on the only one."""
    prompts = prompts_of_sheet(sheet)
    sides = [answers_of_sheet(sheet, column, prompts) for column in sheet.columns]
    if len(sides) == 1:
        return {"scored": scored(prompts, sides[0], who, None)}
    judged = contest(prompts, before=sides[1], after=sides[0], by=who, baseline=None)
    return {name: ref for name, ref in vars(judged).items() if ref is not None}


def _pairs(
    lake: Lake, verdicts: Mapping[str, DatasetRef]
) -> list[tuple[Verdict, dict[str, float | None]]]:
    """The verdict on each pair, and what it comes from: both orders, or both scores."""
    if "compared" in verdicts:
        rows = [verdict_of_row(row) for row in lake.verdicts(verdicts["compared"])]
        return [
            (verdict, {"forward": verdict.forward, "backward": verdict.backward})
            for verdict in rows
        ]
    both = (
        [verdict_of_row(row) for row in lake.verdicts(verdicts[side])]
        for side in ("judged_after", "judged_before")
    )
    found = list[tuple[Verdict, dict[str, float | None]]]()
    for one, other in zip(*both, strict=True):
        verdict = vote(one, other)
        assert verdict is not None, "there are two verdicts"
        found.append((verdict, {"first_score": one.score, "second_score": other.score}))
    return found
