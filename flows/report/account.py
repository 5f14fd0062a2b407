"""What an iteration did and what it took: counts at each stage, what was left out and why, steps
with time and cost, judges, versions.
"""

import json
from collections.abc import Iterator, Mapping, Set
from dataclasses import asdict
from typing import Any

from dapflow.flows.display.figures import steps_old
from dapflow.flows.report.find import Found, own_versions
from dapflow.flows.report.making import made_of
from dapflow.storage import Lake
from dapflow.tasks.calibration import reliability_of
from dapflow.tasks.models.packed.lengths import left_out_too_long
from dapflow.tasks.sampling.engines.thoughts import NOTES, Thoughts
from dapflow.tasks.servers.message import MARKS

Row = dict[str, Any]
# noun -> SQL for why a row went no further; null for one that did
_WHY = {
    "prompts": "NULL",
    "completions": "CASE WHEN finish_reason = 'refused' THEN 'refused at sampling' END",
    "verdicts": "CASE WHEN outcome IN ('invalid', 'refused', 'over_budget') THEN replace(outcome, '_', ' ') END",
    "acceptances": "CASE WHEN NOT accepted THEN coalesce(replace(note, '_', ' '), 'not accepted') END",
    "pairs": "replace(dropped, '_', ' ')",
}
# part -> (its noun, what its rows are called): of the training, then of the evaluation
_STAGES = {
    "prompts": ("prompts", "prompts"),
    "completions": ("completions", "completions"),
    "verdicts": ("verdicts", "verdicts"),
    "acceptances": ("acceptances", "accepted"),
    "pairs": ("pairs", "pairs to train on"),
    "held_out": ("prompts", "held-out prompts"),
    "before": ("completions", "answers before"),
    "after": ("completions", "answers after"),
    "judged_before": ("verdicts", "verdicts on the answers before"),
    "judged_after": ("verdicts", "verdicts on the answers after"),
    "compared": ("verdicts", "verdicts on both answers"),
}
_KNOWN, _TOO_LONG = "known from training", "longer than the context"
_NOTED = ("completions", "verdicts")  # nouns whose rows say more about why


def stages(lake: Lake, found: Found, known: Set[str]) -> list[Row]:
    """Stage by stage: how many rows there were, how many went on, and what was left out by reason,
    with what one of them says. known: the held-out prompts that training knows."""
    made, too_long = [], sorted(left_out_too_long(lake, found.policy))
    for part, (noun, title) in _STAGES.items():
        if part not in found.parts:
            continue
        note = "any_value(note)" if noun in _NOTED else "NULL"
        rows = lake.rows(
            f"SELECT CASE WHEN id IN (SELECT unnest(?)) THEN '{_KNOWN}' WHEN id IN (SELECT "
            f"unnest(?)) THEN '{_TOO_LONG}'"
            f" ELSE {_WHY[noun]} END AS why, count(*) AS n, {note} AS note"
            f" FROM {noun} WHERE version = ? GROUP BY ALL ORDER BY n DESC, why",
            [sorted(known), too_long, found.parts[part]],
        )
        dropped = [
            {"why": row["why"], "rows": row["n"], "note": row["note"]} for row in rows if row["why"]
        ]
        total = sum(row["n"] for row in rows)
        kept = total - sum(one["rows"] for one in dropped)
        made.append(
            {
                "part": part,
                "title": title,
                "version": found.parts[part],
                "rows": total,
                "kept": kept,
                "dropped": dropped,
            }
        )
    return made


def steps(lake: Lake, found: Found) -> list[Row]:
    """The versions of this iteration in the order they were made: what made each, rows, seconds,
    calls, dollars (None: price unknown).
    """
    catalogue = lake.catalogue()
    own = own_versions(catalogue, found)
    details = {
        row["version"]: row
        for row in lake.rows(
            "SELECT version, code, parameters FROM versions WHERE version IN (SELECT unnest(?))",
            [own],
        )
    }
    paid = {
        row["version"]: row
        for row in lake.rows(
            "SELECT version, count(*) AS calls, coalesce(sum(tokens_in + tokens_out), 0)::BIGINT "
            "AS tokens,"
            " CASE WHEN bool_or(usd IS NULL) THEN NULL ELSE sum(usd) END AS usd FROM calls WHERE "
            "version IN (SELECT unnest(?)) GROUP BY version",
            [own],
        )
    }
    parts = {version: part for part, version in found.parts.items()} | {
        found.policy: "new policy",
        found.metrics: "metrics",
    }
    began = found.run["started_at"] if found.run else None
    free = {"calls": 0, "tokens": 0, "usd": 0.0}
    ordered = sorted(
        (catalogue.versions[one] for one in own),
        key=lambda one: (one.completed_at or one.opened_at, one.opened_at),
    )
    return [
        {
            "step": info.step,
            "part": parts.get(info.version, "").partition("[")[0].replace("_", " "),
            "kind": info.kind,
            "version": info.version,
        }
        | {
            "rows": info.rows,
            "seconds": info.seconds,
            "state": info.state,
            "code": details[info.version]["code"],
        }
        | {"cached": bool(began and info.completed_at and info.completed_at < began)}
        | {key: paid.get(info.version, free)[key] for key in free}
        for info in ordered
    ]


def cost(made: list[Row]) -> Row:
    """Sums over steps: seconds in all and in this run alone, judge calls, tokens, dollars (None
    where a price is unknown).
    """
    known = all(one["usd"] is not None for one in made)
    return {
        "seconds": sum(one["seconds"] for one in made),
        "seconds_this_run": sum(one["seconds"] for one in made if not one["cached"]),
        "calls": sum(one["calls"] for one in made),
        "tokens": sum(one["tokens"] for one in made),
        "usd": sum(one["usd"] for one in made) if known else None,
    }


def judges(lake: Lake, found: Found) -> list[Row]:
    """Who labelled and who measured, each with the figures that the lake has about it; of a reward
    model, how often right by how sure.
    """
    parts, told = found.parts, []
    labelled = parts.get("verdicts", found.policy)  # rounds keep their verdicts with their policy
    for role, version in (
        ("labelled the training pairs", labelled),
        ("measured the result", parts.get("compared", parts.get("judged_after"))),
    ):
        for row in lake.rows(
            "SELECT DISTINCT judge FROM verdicts WHERE version = ? AND judge IS NOT NULL ORDER BY "
            "judge",
            [version],
        ):
            model = lake.rows("SELECT name, role FROM models WHERE version = ?", [row["judge"]])
            figures = lake.rows(
                "SELECT name, value, low, high, unit FROM metrics WHERE version IN (?, ?) AND "
                "subject = version AND step IS NULL ORDER BY version, id",
                [row["judge"], version],
            )
            name = (
                f"{model[0]['name']} ({model[0]['role']} model {row['judge'][:8]})"
                if model
                else row["judge"]
            )
            sure = [asdict(one) for one in reliability_of(lake, row["judge"])]
            told.append(
                {
                    "role": role,
                    "judge": row["judge"],
                    "name": name,
                    "figures": figures,
                    "reliability": sure,
                }
            )
    return told


def warnings(
    told: list[Row], metrics: Mapping[str, Row], judged: int, held_out: int, known: int
) -> list[str]:
    """What a reader should know before believing the outcome. judged, known: of the held-out
    prompts, those that were judged on both sides and those that training knows."""
    who = {
        one["role"]: {other["judge"] for other in told if other["role"] == one["role"]}
        for one in told
    }
    labelled, measured = (
        who.get("labelled the training pairs", set()),
        who.get("measured the result", set()),
    )
    said = []
    # the figure also knows members of a panel, one model asked in two ways, and judges that label
    # in rounds
    if labelled & measured or metrics.get("same_judge", {}).get("value"):
        said.append(
            "The judge that measured this result also labelled the training pairs: the policy was "
            "taught to please it, so the win rate is likely too high."
        )
    if known:
        said.append(
            f"{known:,} of {held_out:,} held-out prompts are too like training prompts to count: "
            "they are left out."
        )
    if 0 < judged < held_out - known:  # where none were, the outcome says why
        missing = held_out - known - judged
        said.append(
            f"{missing:,} of {held_out:,} held-out prompts were not judged on both sides and are "
            "not in the win rate."
        )
    before, after = (metrics.get(f"length_{side}", {}).get("value") for side in ("before", "after"))
    if before and after and after > 1.25 * before:
        said.append(
            f"Answers have grown by {after / before - 1:.0%}: judges tend to prefer length, so "
            "look at the win rate by length."
        )
    steady = [
        (one["name"], row)
        for one in told
        for row in one["figures"]
        if row["name"] == "position_consistency"
    ]
    said += [
        f"{name} named the same answer in both orders in {row['value']:.0%} of the comparisons "
        f"[{row['low']:.0%}, {row['high']:.0%}], a coin in "
        "half of them: it goes by the place more than by the answer."
        for name, row in steady
        if row["high"] is not None and row["high"] < 0.5
    ]
    return said


def thoughts(lake: Lake, found: Found) -> list[str]:
    """That the policy thinks before it answers, where completions of this iteration hold thoughts,
    or held them.
    """
    versions = {*own_versions(lake.catalogue(), found), *found.parts.values()}
    apart = " OR ".join("starts_with(note, ?)" for _ in NOTES)
    [row] = lake.rows(
        f"SELECT count(*) FILTER (WHERE {apart}) AS apart, count(*) FILTER (WHERE "
        "regexp_matches(text, ?)) AS inside FROM completions"
        " WHERE version IN (SELECT unnest(?))",
        [*NOTES, MARKS, sorted(versions)],
    )
    told = Thoughts(apart=row["apart"], inside=row["inside"]).warning()
    return [told] if told else []


def semantics(lake: Lake, found: Found, metrics: Mapping[str, Row]) -> list[tuple[str, str]]:
    """What this iteration started from and learned against, and what of it was measured, as
    sentences.
    """
    settings = found.settings
    lag = lake.rows(
        "SELECT value FROM metrics WHERE version = ? AND name = 'max_lag'", [found.policy]
    )
    trained = lake.rows("SELECT recipe FROM models WHERE version = ?", [found.policy])
    asked = settings.get("prompts", {})
    pool = {"new": "the pairs of this iteration only", "all": "the pairs of all iterations so far"}
    schedule = {
        "next": "the next ones at each iteration",
        "same": "the same ones at each iteration",
    }
    facts = [
        ("weights start from", _model(lake, found.parts.get("init"), settings.get("init"))),
        (
            "reference of the loss",
            _model(lake, found.parts.get("reference"), settings.get("reference")),
        ),
        ("trained on", pool.get(settings.get("pool", ""), settings.get("pool"))),
        ("training prompts", schedule.get(asked.get("schedule", ""), asked.get("schedule"))),
        (
            "oldest sample",
            f"{steps_old(lag[0]['value'])} when it was learned from"
            if lag
            else "not all sampled by the policy itself",
        ),
        *(
            made_of({name: row["value"] for name, row in metrics.items()}).items()
            if "people_prompts" in metrics
            else ()
        ),
        ("loss", _spelled(settings.get("loss"))),
        *_ending(json.loads(trained[0]["recipe"] or "{}") if trained else {}),
        ("acceptance", _spelled(settings.get("acceptance"))),
        ("pairing", _spelled(settings.get("pairing"))),
        ("seed", settings.get("seed")),
    ]
    return [(name, str(value)) for name, value in facts if value is not None]


def _ending(trained: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """How its training ended, where that was by pairs that were set aside."""
    if stopped := trained.get("stopped"):
        yield "stopped", f"after step {stopped['step']}: {stopped['reason']}"
    if "picked" in trained:
        yield "best weights", f"those after step {trained['picked']}"


def _model(lake: Lake, version: str | None, said: str | None) -> str | None:
    if version is None:
        return said
    rows = lake.rows("SELECT name FROM models WHERE version = ?", [version])
    name = f"{rows[0]['name']} ({version[:8]})" if rows else version[:8]
    return f"the {said} policy: {name}" if said else name


def _spelled(value: Any) -> str | None:
    if isinstance(value, list):  # a sum of losses
        return " + ".join(str(_spelled(term)) for term in value)
    if not isinstance(value, dict):
        return value
    head = value.get("name") or value.get("rule")
    rest = {
        key: one for key, one in value.items() if key not in ("name", "rule") and one is not None
    }
    return (
        f"{head} ({', '.join(f'{key} {one}' for key, one in rest.items())})"
        if rest and head
        else str(head or rest)
    )
