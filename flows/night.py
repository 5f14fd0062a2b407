"""`night`: the promoted policy and the next slice of prompts -> a new policy, promoted if the gate
lets it pass. What the schedules start.

night(recipe="rso", lake="./lake")
A night whose prompts teach nothing (no pair is left after judging) keeps the policy, says so, and
leaves the next prompts to the next night. A night that was killed has decided nothing, so the next
one, or a retry, takes the same policy and the same prompts and goes on from what the lake holds.
Test: pytest tests/flows/cli/test_policies.py; with a real server and worker: make test-nights
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from dapflow.flows.align import chosen
from dapflow.flows.iteration import iterate
from dapflow.flows.recipes.gate import Check, gaps, gate_figures
from dapflow.flows.recipes.methods import RECIPES
from dapflow.flows.recipes.recipe import Recipe
from dapflow.flows.report.publish import publish_report
from dapflow.flows.server.dead_runs import bury, end_earlier_attempts
from dapflow.flows.standing import IterationData
from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.storage.promotions import Decision, Line, decide, decided_by, line_of
from dapflow.storage.runs import record_run
from dapflow.tasks.events import GATE_CLOSED, tell
from dapflow.tasks.markdown import as_table, as_text
from dapflow.tasks.models.names import resolve
from dapflow.tasks.models.policy import register_model
from dapflow.tasks.step import current_lake, use_lake
from dapflow.tasks.step.shards import use_shards
from dapflow.tasks.training.errors import NothingToLearnError

RecipeName = Enum("RecipeName", {name: name for name in RECIPES}, type=str)
"""The recipes as a choice of the UI's form."""
_FIRST = RecipeName("rso")  # type: ignore[call-arg]


@flow(name="night", flow_run_name="night of {recipe.value}", persist_result=False)
def night(
    recipe: RecipeName = _FIRST,  # type: ignore[valid-type]
    settings: tuple[str, ...] = (),
    toy: bool = False,
    lake: str = "lake",
) -> Any:
    """One iteration on top of the promoted policy, and the decision whether its result is promoted.

    Args:
        recipe: the method.
        settings: changes to it, `key=value` each, for example `gate.win_rate_low=0.45`.
        toy: on a toy model: seconds, to try the installation.
        lake: directory of the lake, or its address.

    Returns the row of `promotions` that it has written. Raises UserError for what the user can put
    right.
    """
    wanted, run = (
        chosen(recipe.value, settings, toy, from_parameters=deployment.id is not None),
        str(flow_run.id),
    )
    with Lake(lake) as opened, use_lake(opened), use_shards(wanted.shards):
        bury(opened)
        end_earlier_attempts(run)
        with record_run(opened, run, wanted.name, wanted.model_dump(mode="json")) as record:
            if (
                told := decided_by(opened, run)
            ) is not None:  # killed right after it had decided, and tried again
                if told["candidate"]:
                    policy, metrics = (
                        ModelRef("models", told["candidate"], 1),
                        DatasetRef("metrics", told["metrics"], 0),
                    )
                    record.made(told["slice"], policy, metrics)
                    publish_report(policy, metrics)
                return _ended(told)
            digest = resolve(wanted.policy).digest
            initial, line = register_model(wanted.policy, digest), line_of(opened, digest)
            policy = initial if line.policy is None else ModelRef("models", line.policy, 1)
            try:
                done = iterate(wanted, line.slice, policy, initial, earlier_data(opened, policy))
            except NothingToLearnError as error:
                return _ended(pass_over(opened, line, wanted, str(error)))
            record.made(line.slice, done.policy, done.metrics)
            decided = gate(wanted, line, done.policy, done.metrics)
            publish_report(done.policy, done.metrics)
            return _ended(decided)


@task(name="gate", task_run_name="gate", cache_policy=NO_CACHE, persist_result=False)
def gate(recipe: Recipe, line: Line, candidate: ModelRef, metrics: DatasetRef) -> dict[str, Any]:
    """Promote the candidate, or keep the policy of before: one row in the lake, which says why.
    Returns it.
    """
    lake = current_lake()
    figures = gate_figures(lake, metrics)
    checks = recipe.gate.check(figures, gaps(lake, metrics))
    closed = [str(check) for check in checks if not check.holds]
    decision = Decision(
        action="keep" if closed else "promote",
        candidate=candidate.version,
        reason="; ".join(closed) or "all that the gate asks holds",
        recipe=recipe.name,
        run=str(flow_run.id),
        metrics=metrics.version,
        figures=figures,
    )
    row = decide(lake, line, decision)
    create_markdown_artifact(
        key="gate", markdown=_card(row, checks), description=as_text(row["reason"])
    )
    if row["action"] == "keep":
        tell(
            GATE_CLOSED,
            candidate.version,
            f"models@{candidate.version} was not promoted: {row['reason']}.",
        )
    return row


def pass_over(lake: Lake, line: Line, recipe: Recipe, reason: str) -> dict[str, Any]:
    """Keep the policy and go on to the next prompts, where these have taught nothing: they would
    not tomorrow either. Returns the row.
    """
    row = decide(
        lake,
        line,
        Decision(
            action="keep", candidate="", reason=reason, recipe=recipe.name, run=str(flow_run.id)
        ),
    )
    tell(GATE_CLOSED, row["policy"] or line.name, in_words(row))
    return row


def earlier_data(lake: Lake, policy: ModelRef) -> list[IterationData]:
    """What a policy has learned from, for a recipe that trains on all so far: pairs, or prompts and
    the completions they were accepted from. What is no longer in the lake is left out."""
    parents = lake.catalogue().parents
    learned = parents.get(policy.version, {})
    if "answers" not in learned:
        return [IterationData(pairs=ref) for ref in _held(lake, learned, "pairs").values()]
    learned = parents[learned["answers"]]
    prompts, completions = (_held(lake, learned, role) for role in ("prompts", "completions"))
    return [
        IterationData(prompts=ref, completions=completions[place])
        for place, ref in prompts.items()
        if place in completions
    ]


def _held(lake: Lake, parents: Mapping[str, str], role: str) -> dict[int, DatasetRef]:
    """The datasets of `role[0]`, `role[1]` ... that the lake holds, by place."""
    pattern = re.compile(rf"{role}\[(\d+)\]")
    places = {int(match[1]): name for name in parents if (match := pattern.fullmatch(name))}
    refs = ((place, lake.find(parents[places[place]])) for place in sorted(places))
    return {place: ref for place, ref in refs if isinstance(ref, DatasetRef)}


def _ended(row: dict[str, Any]) -> State[dict[str, Any]]:
    return Completed(
        name="Promoted" if row["action"] == "promote" else "GateClosed",
        message=in_words(row),
        data=row,
    )


def in_words(row: dict[str, Any]) -> str:
    """What a night has come to, in a sentence."""
    if not row["candidate"]:
        return f"No policy was made: {row['reason']}"
    return (
        f"models@{row['candidate']} "
        f"{'is promoted' if row['action'] == 'promote' else 'is not promoted'}: {row['reason']}"
    )


def _card(row: dict[str, Any], checks: list[Check]) -> str:
    decided = (
        f"**{'Promoted' if row['action'] == 'promote' else 'Not promoted'}**: "
        f"`models@{row['candidate']}`, {as_text(row['reason'])}."
    )
    promoted = (
        "The promoted policy is "
        f"`{'models@' + row['policy'] if row['policy'] else 'the initial one'}`."
    )
    figures = as_table(("figure", "found", "asked", ""), map(_figure, checks))
    return f"{decided}\n{promoted}\n\n{figures}"


def _figure(check: Check) -> tuple[str, ...]:
    found = "not measured" if check.found is None else f"{check.found:.4g}"
    return (
        check.name,
        found,
        f"{'≥' if check.at_least else '≤'} {check.threshold:g}",
        "✓" if check.holds else "✗",
    )
