"""How the judges of an iteration did, and what they cost: figures of its summary, read from the
lake.

judge_figures(lake, iteration, "training")  ->  who judged, how often it was right, or how steady a judge that compares is
cost_figures(lake, iteration)               ->  calls, tokens, dollars, and dollars for each pair that was kept
"""

from typing import Any

from dapflow.flows.iteration import Iteration
from dapflow.flows.judges import Asked
from dapflow.storage import Lake, ModelRef
from dapflow.storage.ledger import spent_on
from dapflow.tasks.evaluation.judge_quality import AGREEMENT, CHANGE
from dapflow.tasks.judging.judges.llm import LLM

_KEYS = {"value": "", "low": "_low", "high": "_high"}
_STEADY = {"position_consistency": "consistency", "first_place_wins": "first"}
_QUALITY = {AGREEMENT: "accuracy", CHANGE: "change"} | {
    name: name for name in ("decided", "unread", "exact_match", "spearman", "kendall", "five_best")
}
_LABELS, _CONTEST = "verdicts", "compared"  # the parts of an iteration that may be comparisons


def judge_figures(lake: Lake, iteration: Iteration, role: str) -> dict[str, Any]:
    """Who judged; of a reward model, how often it was right on held-out preferences; of a judge
    that compares, whether places sway it.
    """
    judge = iteration.judges[role]
    if isinstance(judge, Asked):
        used = {"used": role != "self"}
        return {
            "judge": str(judge),
            **used,
            **_figures(lake, iteration.parts["judge_quality"].version, _QUALITY),
        }
    if not isinstance(judge, ModelRef):
        part = iteration.parts.get(_LABELS if role == "training" else _CONTEST)
        name = f"{judge} {judge.template_name}" if isinstance(judge, LLM) else str(judge)
        return {
            "judge": name,
            **(_figures(lake, part.version, _STEADY) if part is not None else {}),
        }
    return {
        "judge": judge.version,
        **_figures(lake, judge.version, {"held_out_accuracy": "accuracy"}),
    }


def cost_figures(lake: Lake, iteration: Iteration) -> dict[str, Any]:
    """All calls made for the verdicts of an iteration, those of killed runs and failures included;
    dollars are null where nobody knows the price. What an earlier version had paid for already is
    not counted again. usd_per_pair: of what labelled the pairs, if that was paid."""
    catalogue, parts = lake.catalogue(), iteration.parts
    measured = set(catalogue.parents.get(parts["metrics"].version, {}).values())
    against = {
        parent for one in measured for parent in catalogue.parents.get(one, {}).values()
    }  # verdicts on other baselines ...
    against = {
        one for one in against if catalogue.versions[one].kind == "verdicts"
    }  # ... and not the policies of before
    versions = (
        {iteration.policy.version, *(ref.version for ref in parts.values())} | measured | against
    )
    calls, tokens, usd = spent_on(lake, with_members(lake, versions))
    named = (
        [parts[_LABELS].version] if _LABELS in parts else [iteration.policy.version]
    )  # rounds keep their verdicts with their policy
    paid, _, labels = spent_on(lake, with_members(lake, set(named)))
    pairs = parts["pairs"].version if "pairs" in parts else iteration.policy.version
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
