"""What differs between two runs: inputs, parameters, code, and the outcome, prompt by prompt on the
prompts that both were measured on.

compare(lake, a, b)  ->  {"inputs": ..., "parameters": ..., "code": ..., "outcome": ..., "flipped": [...]}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from dapflow.flows.report import account, figures, outcome
from dapflow.flows.report.find import Found
from dapflow.flows.report.gather import run_of
from dapflow.storage import Lake
from dapflow.tasks.statistics import bootstrap_share, paired_difference

Row = dict[str, Any]
_INPUTS = ("prompts", "held_out", "init", "reference", "completions", "pairs")
_SEED = 0  # of the bootstrap: the same two runs give the same interval
_NO_MEETING = (
    "The two were measured by different judges, or compared without scores: there is no score of "
    "both in one unit."
)


def compare(lake: Lake, a: Found, b: Found, shown: int = 12) -> Row:
    """b against a, each by its last iteration. shown: how many of the flipped prompts in full."""
    outcomes, flipped = _outcomes(lake, a, b, shown)
    runs = [run_of(one) for one in (a, b)]
    return {
        "a": _named(a),
        "b": _named(b),
        "outcome": outcomes,
        "flipped": flipped,
        "metrics": _metrics(lake, a, b),
        "parameters": list(differences(a.settings, b.settings)),
        "inputs": [
            _input(lake, part, a, b) for part in _INPUTS if part in a.parts or part in b.parts
        ],
        "code": _code(lake, a, b),
        "software": list(differences(runs[0]["software"], runs[1]["software"])),
        "cost": {
            side: account.cost(account.steps(lake, one)) for side, one in (("a", a), ("b", b))
        },
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Keys, dotted, whose values differ; one that only one side has is None on the other."""
    for key in dict.fromkeys([*a, *b]):
        one, two = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(two, dict):
            yield from differences(one, two, f"{prefix}{key}.")
        elif one != two:
            yield {"key": prefix + key, "a": one, "b": two}


def _named(one: Found) -> Row:
    run = one.run
    told = (
        {"run": run["run"], "started_at": run["started_at"].isoformat(timespec="seconds")}
        if run
        else {"run": None, "started_at": None}
    )
    return told | {
        "label": one.label,
        "recipe": one.recipe,
        "iteration": one.iteration,
        "policy": one.policy,
    }


def _input(lake: Lake, part: str, a: Found, b: Found) -> Row:
    versions = [one.parts.get(part) for one in (a, b)]
    rows = [
        None if version is None or (ref := lake.find(version)) is None else ref.rows
        for version in versions
    ]
    return {
        "part": part,
        "a": versions[0],
        "b": versions[1],
        "rows_a": rows[0],
        "rows_b": rows[1],
        "same": versions[0] == versions[1],
    }


def _code(lake: Lake, a: Found, b: Found) -> list[Row]:
    """The steps whose code differs between the two."""
    old, new = ({step["step"]: step["code"] for step in account.steps(lake, one)} for one in (a, b))
    return [one for one in differences(old, new) if one["a"] and one["b"]]


def _metrics(lake: Lake, a: Found, b: Found) -> list[Row]:
    sides = [{row["name"]: row for row in figures.metric_rows(lake, one)} for one in (a, b)]
    made = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        rows = [side.get(name) for side in sides]
        unit = next(row["unit"] for row in rows if row)
        made.append(
            {
                "name": name,
                "unit": unit,
                **{key: row["value"] if row else None for key, row in zip("ab", rows, strict=True)},
            }
        )
    return made


def _outcomes(lake: Lake, a: Found, b: Found, shown: int) -> tuple[Row, list[Row]]:
    """How much more b wins, how often its answers beat those of a, and the prompts whose winner
    flipped.
    """
    sides = [
        {
            row["digest"]: row
            for row in outcome.prompt_rows(lake, one, outcome.known_from_training(lake, one.parts))
        }
        for one in (a, b)
    ]
    both = sorted(sides[0].keys() & sides[1].keys())
    told: Row = {
        "prompts_both": len(both),
        "prompts_only_a": len(sides[0]) - len(both),
        "prompts_only_b": len(sides[1]) - len(both),
    }
    told["same_opponent"] = a.parts.get("before") == b.parts.get("before")
    if len(both) < 2:
        why = "".join(
            _unjudged(lake, name, one)
            for name, one, side in zip("AB", (a, b), sides, strict=True)
            if not side
        )
        sentence = f"Both were judged on {len(both)} of the same prompts: nothing to test.{why}"
        return told | {"verdict": "cannot tell", "sentence": sentence}, []
    wins = [{digest: side[digest]["win"] for digest in both} for side in sides]
    change, low, high = paired_difference(wins[0], wins[1], _SEED)
    told |= {
        "win_rate_a": sum(wins[0].values()) / len(both),
        "win_rate_b": sum(wins[1].values()) / len(both),
    }
    told |= {"difference": change, "difference_low": low, "difference_high": high}
    told |= _meeting(lake, a, b, sides, both)
    decided = "meeting_low" in told
    low, high, even = (
        (told["meeting_low"], told["meeting_high"], 0.5) if decided else (low, high, 0.0)
    )
    told["verdict"] = outcome.verdict_of(low, high, even)
    told["sentence"] = _sentence(told, decided)
    turned = [digest for digest in both if (wins[0][digest] - 0.5) * (wins[1][digest] - 0.5) < 0]
    told |= {
        "flipped_to_win": sum(wins[1][one] > 0.5 for one in turned),
        "flipped_to_loss": sum(wins[1][one] < 0.5 for one in turned),
    }
    return told, _flipped(lake, a, b, sides, turned[:shown])


def _unjudged(lake: Lake, name: str, one: Found) -> str:
    """Why a run has no win rate, as a further sentence; empty where the lake does not say."""
    rows = lake.rows(
        "SELECT note FROM metrics WHERE version = ? AND name = 'win_rate' AND note IS NOT NULL",
        [one.metrics],
    )
    return "".join(f" Of {name}: {row['note']}." for row in rows)


def _meeting(lake: Lake, a: Found, b: Found, sides: list[dict[str, Row]], both: list[str]) -> Row:
    """How often b's answer scores higher than a's with the judge that has scored both."""
    judges = [
        {
            row["judge"]
            for row in lake.rows(
                "SELECT DISTINCT judge FROM verdicts WHERE version = ?", [one.parts["judged_after"]]
            )
        }
        if "judged_after" in one.parts
        else set[str]()
        for one in (a, b)
    ]
    if not judges[0] or judges[0] != judges[1]:
        return {"meeting": None, "meeting_note": _NO_MEETING}
    scores = [[side[digest]["after_score"] for digest in both] for side in sides]
    won = [0.5 if one == two else float(two > one) for one, two in zip(*scores, strict=True)]
    rate, low, high = bootstrap_share(won, _SEED)
    return {"meeting": rate, "meeting_low": low, "meeting_high": high}


def _sentence(told: Row, met: bool) -> str:
    how = {
        "better": "B is better than A",
        "worse": "B is worse than A",
        "cannot tell": "These prompts cannot tell A and B apart",
    }[told["verdict"]]
    if met:
        return (
            f"{how}: B's answers score higher on {told['meeting']:.1%} [{told['meeting_low']:.1%}, "
            f"{told['meeting_high']:.1%}] of the same prompts."
        )
    against = "the same opponent" if told["same_opponent"] else "its own opponent"
    return (
        f"{how}: against {against} B wins {100 * told['difference']:+.1f} points "
        f"[{100 * told['difference_low']:+.1f}, {100 * told['difference_high']:+.1f}] more often."
    )


def _flipped(
    lake: Lake, a: Found, b: Found, sides: list[dict[str, Row]], turned: list[str]
) -> list[Row]:
    ids = [side[digest]["after_id"] for side in sides for digest in turned]
    versions = [one.parts["after"] for one in (a, b)] if turned else []
    texts = outcome.answers_of(lake, versions, ids)
    prompts = {
        row["digest"]: row["prompt"]
        for row in lake.rows(
            "SELECT digest, prompt FROM prompts WHERE version = ? AND digest IN (SELECT unnest(?))",
            [a.parts.get("held_out", ""), turned],
        )
    }
    made = []
    for digest in turned:
        one, two = (side[digest] for side in sides)
        answers = {"before": texts[one["after_id"]], "after": texts[two["after_id"]]}
        made.append(
            {
                "prompt": prompts[digest],
                "why": "B wins, A lost" if two["win"] > 0.5 else "B loses, A won",
                "win_a": one["win"],
                "win_b": two["win"],
            }
            | {side: row["text"] for side, row in answers.items()}
            | {f"{side}_cut": row["finish_reason"] == "length" for side, row in answers.items()}
            | {"before_tokens": one["after_tokens"], "after_tokens": two["after_tokens"]}
            | {
                "before_score": one["after_score"],
                "after_score": two["after_score"],
                "change": None,
            }
        )
    return made
