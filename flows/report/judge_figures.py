"""How the judges of an iteration did, and what they cost: figures of its summary, read from the
lake.

judge_figures(lake, iteration, "training")  ->  who judged, how often it was right, or how steady a judge that compares is
cost_figures(lake, iteration)               ->  calls, tokens, dollars, and dollars for each pair that was kept
"""

from typing import Any

from dapflow.flows.iteration import Iteration
from dapflow.storage import Lake
from dapflow.storage.ledger import spent_on
from dapflow.tasks.evaluation.judge_quality import AGREEMENT, CHANGE

_KEYS = {"value": "", "low": "_low", "high": "_high"}
_STEADY = {"position_consistency": "consistency", "first_place_wins": "first"}
_QUALITY = {AGREEMENT: "accuracy", CHANGE: "change"} | {
    name: name for name in ("decided", "unread", "exact_match", "spearman", "kendall", "five_best")
}


def judge_figures(lake: Lake, iteration: Iteration, role: str) -> dict[str, Any]:
    """Who judged; of a reward model, how often it was right on held-out preferences; of a judge
    that compares, whether places sway it.
    """
    judge, data = iteration.judges[role], iteration.data
    named = {"judge": judge.spec.full_name}
    if judge.spec.proof is not None:
        assert data.judge_quality is not None, "it has been measured"
        quality = _figures(lake, data.judge_quality.version, _QUALITY)
        return {**named, "used": role != "self", **quality}
    if judge.model is not None:
        return {**named, **_figures(lake, judge.model.version, {"held_out_accuracy": "accuracy"})}
    comparisons = data.verdicts if role == "training" else data.compared
    steady = _figures(lake, comparisons.version, _STEADY) if comparisons is not None else {}
    return {**named, **steady}


def cost_figures(lake: Lake, iteration: Iteration) -> dict[str, Any]:
    """All calls made for the verdicts of an iteration, those of killed runs and failures included;
    dollars are null where nobody knows the price. What an earlier version had paid for already is
    not counted again. usd_per_pair: of what labelled the pairs, if that was paid."""
    catalogue, data = lake.catalogue(), iteration.data
    assert data.metrics is not None, "it has been measured"
    measured = set(catalogue.parents.get(data.metrics.version, {}).values())
    against = {
        parent for one in measured for parent in catalogue.parents.get(one, {}).values()
    }  # verdicts on other baselines ...
    against = {
        one for one in against if catalogue.versions[one].kind == "verdicts"
    }  # ... and not the policies of before
    versions = (
        {iteration.policy.version, *(ref.version for ref in data.refs())} | measured | against
    )
    calls, tokens, usd = spent_on(lake, with_members(lake, versions))
    # rounds keep their verdicts, and their pairs, with their policy
    labelled = iteration.policy if data.verdicts is None else data.verdicts
    paid, _, labels = spent_on(lake, with_members(lake, {labelled.version}))
    pairs = (data.pairs or iteration.policy).version
    kept = lake.rows(
        "SELECT count(*) AS n FROM pairs WHERE version = ? AND dropped IS NULL", [pairs]
    )[0]["n"]
    return {
        "calls": calls,
        "tokens": tokens,
        "usd": usd,
        "usd_per_pair": labels / kept if kept and paid and labels is not None else None,
    }


def with_members(lake: Lake, versions: set[str]) -> set[str]:
    """The versions, and where one is made of several judges' verdicts, theirs."""
    catalogue = lake.catalogue()
    parents = {
        parent for version in versions for parent in catalogue.parents.get(version, {}).values()
    }
    return versions | {
        parent for parent in parents if catalogue.versions[parent].kind == "verdicts"
    }


def _figures(lake: Lake, version: str, names: dict[str, str]) -> dict[str, float]:
    """Metrics of a version with their intervals, under shorter names."""
    rows = lake.rows("SELECT name, value, low, high FROM metrics WHERE version = ?", [version])
    return {
        f"{names[row['name']]}{suffix}": row[key]
        for row in rows
        if row["name"] in names
        for key, suffix in _KEYS.items()
    }
