"""How a policy was made, in words: figures of `dapflow.tasks.evaluation.provenance` as facts of a
report and as cells of the closing table.

made_of({"people_prompts": 180.0, ...})  ->  {"labelled by people": "180 prompts, through a reward model", ...}
"""

from collections.abc import Mapping

from dapflow.flows.display.cells import size

Figures = Mapping[str, float | None]
_UNKNOWN = "not measured"


def made_of(figures: Figures) -> dict[str, str]:
    """Who labelled, who sampled, whether the feedback was renewed, whether an API was needed, and
    how many models were in memory.
    """
    return {
        "labelled by people": _people(figures),
        "own samples": _own(figures),
        "feedback renewed": _renewed(figures.get("renewed_share")),
        "external API": _api(figures),
        "models in memory": _models(figures),
    }


def _people(figures: Figures) -> str:
    prompts, share = figures.get("people_prompts"), figures.get("people_share")
    if prompts is None:
        return _UNKNOWN
    if not prompts:
        return "no"
    if share is None or not share:
        return f"{prompts:,.0f} prompts, for its reward model or as answers"
    return f"{prompts:,.0f} prompts" + ("" if share == 1 else f", {share:.0%} of rows")


def _own(figures: Figures) -> str:
    share, lag = figures.get("own_share"), figures.get("mean_lag")
    if share is None:
        return _UNKNOWN
    return (
        "no"
        if not share
        else f"{share:.0%}"
        if lag is None
        else f"{share:.0%}, {lag:.3g} steps old"
    )


def _renewed(share: float | None) -> str:
    if share is None:
        return _UNKNOWN
    return "no" if not share else "yes" if share == 1 else f"{share:.0%} of rows"


def _api(figures: Figures) -> str:
    needed, calls, usd = (figures.get(name) for name in ("api_answers", "api_calls", "api_usd"))
    if needed is None:
        return _UNKNOWN
    if not needed and not calls:
        return "no"
    cost = "price unknown" if usd is None else f"${usd:.4f}"
    return f"{needed:,.0f} answers, {calls or 0:,.0f} calls, {cost}"


def _models(figures: Figures) -> str:
    count, held = figures.get("models_in_memory"), figures.get("model_bytes")
    return (
        _UNKNOWN
        if count is None
        else f"{count:.0f}" + ("" if held is None else f" ({size(round(held))})")
    )
