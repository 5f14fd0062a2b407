"""What came out of an iteration, as plain values: the figures of `dapflow run --json` and the
examples a person reads.
"""

from collections import Counter
from typing import Any

from dapflow.flows.iteration import Iteration
from dapflow.flows.report.judge_figures import cost_figures, judge_figures
from dapflow.storage import Lake, ModelRef
from dapflow.tasks.evaluation.contamination import left_out
from dapflow.tasks.models.packed.lengths import TOO_LONG, left_out_too_long


def summarise(lake: Lake, iteration: Iteration) -> dict[str, Any]:
    """The figures of one iteration: rates and shares in [0, 1], rewards in the reward model's
    logits, lengths in tokens.
    """
    metrics = {row["name"]: row for row in lake.rows_of(iteration.metrics)}
    data, held_out = iteration.data, iteration.data.held_out
    assert held_out is not None, "it has been measured"
    accepted = data.acceptances
    pairs = lake.rows(
        "SELECT id, dropped FROM pairs WHERE version = ?",
        [(data.pairs or iteration.policy).version],
    )
    acceptances = lake.rows(
        "SELECT * FROM acceptances WHERE version = ?", [(accepted or iteration.policy).version]
    )  # none where a judge compared
    able = [row for row in acceptances if row["note"] is None]
    too_long = left_out_too_long(lake, iteration.policy.version)
    dropped = Counter(row["dropped"] for row in pairs if row["dropped"])
    dropped.update(TOO_LONG for row in (*pairs, *acceptances) if row["id"] in too_long)
    dropped.update(row["note"] for row in acceptances if row["note"])
    if accepted is None and data.verdicts is not None:
        dropped.update(
            row["outcome"] for row in lake.rows_of(data.verdicts) if row["other_id"] is None
        )
    return {
        "policy": iteration.policy.version,
        "win_rate": metrics["win_rate"]["value"],
        "win_rate_low": metrics["win_rate"]["low"],
        "win_rate_high": metrics["win_rate"]["high"],
        **{
            name: _value(metrics, name)
            for name in ("reward_before", "reward_after", "length_before", "length_after")
        },
        **{name: _value(metrics, name) for name in ("truncated_before", "truncated_after")},
        "judged_prompts": int(metrics["judged_prompts"]["value"])
        if "judged_prompts" in metrics
        else None,
        "metrics": [
            {key: row[key] for key in ("name", "value", "low", "high", "unit", "note")}
            for row in metrics.values()
        ],
        "max_lag": _lag(lake, iteration.policy),
        "pairs": sum(row["dropped"] is None and row["id"] not in too_long for row in pairs),
        "answers": 0
        if pairs
        else sum(
            row["accepted"] and row["id"] not in too_long for row in able
        ),  # trained on as they are
        "dropped": dict(sorted(dropped.items())),
        "judges": {role: judge_figures(lake, iteration, role) for role in iteration.judges},
        "judging": cost_figures(lake, iteration),
        "held_out_prompts": held_out.rows,
        "examples": _examples(lake, iteration),
    }


def _lag(lake: Lake, policy: ModelRef) -> int | None:
    """How many optimiser steps old the oldest sample was when it was learned from; None where some
    were not the policy's own.
    """
    rows = lake.rows(
        "SELECT value FROM metrics WHERE version = ? AND name = 'max_lag'", [policy.version]
    )
    return int(rows[0]["value"]) if rows else None


def _value(metrics: dict[str, Any], name: str) -> float | None:
    return metrics[name]["value"] if name in metrics else None


def _examples(lake: Lake, iteration: Iteration) -> list[dict[str, str]]:
    """The held-out prompts whose answers' judged score rose most, in the middle, and fell most, of
    those that training does not know.
    """
    data = iteration.data
    assert data.overlap is not None, "it has been measured"
    if data.compared is not None:
        judged = "JOIN verdicts v ON v.version = ? AND v.completion_id = a.id AND v.other_id = b.id"
        change, verdicts = "2 * v.score - 1", (data.compared,)
    else:
        judged = (
            "JOIN verdicts vb ON vb.version = ? AND vb.completion_id = b.id "
            "JOIN verdicts va ON va.version = ? AND va.completion_id = a.id"
        )
        change, verdicts = "va.score - vb.score", (data.judged_before, data.judged_after)
    refs = (data.before, data.after, *verdicts, data.held_out)
    rows = lake.rows(
        f"""
        SELECT p.prompt, b.text AS before, a.text AS after, {change} AS change
        FROM prompts p
        JOIN completions b ON b.version = ? AND b.prompt_id = p.id AND b.sample = 0
        JOIN completions a ON a.version = ? AND a.prompt_id = p.id AND a.sample = 0
        {judged}
        WHERE p.version = ? AND p.id NOT IN (SELECT unnest(?)) AND change IS NOT NULL AND a.text <> b.text ORDER BY change DESC, p.id
        """,
        [
            *(ref.version for ref in refs if ref is not None),
            sorted(left_out(lake.rows_of(data.overlap))),
        ],
    )
    return [rows[place] for place in sorted({0, len(rows) // 2, len(rows) - 1})] if rows else []
