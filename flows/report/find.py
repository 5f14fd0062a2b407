"""Which iterations a report is about, and what each is made of: found in the lake by its edges, so
a run of any recipe, or of an older version, reads.

find(lake, "newest")  ->  [Found(...), ...], an iteration each. Starts no Prefect and no torch.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dapflow.storage import Lake, UserError
from dapflow.storage.catalogue import Catalogue

_TRAINED_ON = ("pairs", "acceptances", "verdicts", "completions", "prompts")


@dataclass(frozen=True, kw_only=True)
class Found:
    """One iteration: its run (None for a policy that no run has recorded), its number, and the
    versions it is made of by their part.
    """

    run: Mapping[str, Any] | None
    iteration: int
    policy: str
    metrics: str
    parts: Mapping[str, str]

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe with every choice, as the run had it."""
        return json.loads(self.run["settings"]) if self.run else {}

    @property
    def recipe(self) -> str:
        return self.run["recipe"] if self.run else "policy"

    @property
    def label(self) -> str:
        return f"{self.recipe} {self.iteration}" if self.run else f"models@{self.policy[:8]}"


def find(lake: Lake, name: str) -> list[Found]:
    """The measured iterations of a run (its id or the beginning of it, or `newest`), or the one
    that made a policy. Raises UserError.
    """
    runs = lake.rows("SELECT * FROM runs ORDER BY started_at")
    made = lake.rows("SELECT run, iteration, policy, metrics FROM iterations ORDER BY iteration")
    if name == "newest":
        measured = [run for run in runs if any(one["run"] == run["run"] for one in made)]
        if not measured:
            raise UserError(
                "No run of this lake has measured a policy yet: `dapflow run rso --toy` does in "
                "one to two minutes."
            )
        return _of_run(lake, measured[-1], made)
    matching = [run for run in runs if run["run"].startswith(name)]
    if len(matching) > 1:
        raise UserError(
            f"{name} is the beginning of {len(matching)} runs "
            f"({', '.join(run['run'] for run in matching[:4])}): give more of it."
        )
    return _of_run(lake, matching[0], made) if matching else [find_policy(lake, name)]


def iterations(lake: Lake) -> list[Found]:
    """All that runs have measured and the lake still holds, oldest run first."""
    catalogue, found = lake.catalogue(), list[Found]()
    runs = {row["run"]: row for row in lake.rows("SELECT * FROM runs ORDER BY started_at")}
    for row in lake.rows(
        "SELECT i.* FROM iterations i JOIN runs r USING (run) ORDER BY r.started_at, i.iteration"
    ):
        if all(
            (info := catalogue.versions.get(row[one])) and info.state == "complete"
            for one in ("policy", "metrics")
        ):
            found.append(
                _found(lake, runs[row["run"]], row["iteration"], row["policy"], row["metrics"])
            )
    return found


def find_policy(lake: Lake, name: str) -> Found:
    """The iteration that made a policy, in the newest run that has it. Raises UserError when it was
    not measured.
    """
    version, catalogue = lake.resolve(name), lake.catalogue()
    rows = lake.rows(
        "SELECT r.*, i.iteration, i.metrics FROM iterations i JOIN runs r USING (run) WHERE "
        "i.policy = ? ORDER BY r.started_at DESC LIMIT 1",
        [version],
    )
    if rows:
        return _found(lake, rows[0], rows[0]["iteration"], version, rows[0]["metrics"])
    measured = [
        one for one in metrics_of(catalogue, version) if "after" in catalogue.parents.get(one, {})
    ]
    if not measured:
        raise UserError(
            f'{name} is neither a run nor a policy that has been measured: `dapflow sql "select '
            'run, recipe from runs"` lists the runs.'
        )
    return _found(lake, None, 1, version, measured[-1])


def metrics_of(catalogue: Catalogue, policy: str) -> list[str]:
    """The versions of metrics that were made of a policy, and of none that learned from it, oldest
    first.
    """
    later = {
        one for one in catalogue.descendants(policy) if catalogue.versions[one].kind == "models"
    }
    children = [catalogue.versions[one] for one in catalogue.children.get(policy, ())]
    found = [
        one
        for one in children
        if one.kind == "metrics"
        and one.state == "complete"
        and later.isdisjoint(catalogue.ancestors(one.version))
    ]
    return [one.version for one in sorted(found, key=lambda one: one.opened_at)]


def _of_run(lake: Lake, run: Mapping[str, Any], made: Iterable[Mapping[str, Any]]) -> list[Found]:
    found = [one for one in made if one["run"] == run["run"]]
    if not found:
        raise UserError(
            f"The run {run['run']} has measured no policy "
            f"({run['state']}{': ' + run['note'] if run['note'] else ''})."
        )
    return [_found(lake, run, one["iteration"], one["policy"], one["metrics"]) for one in found]


def _found(
    lake: Lake, run: Mapping[str, Any] | None, iteration: int, policy: str, metrics: str
) -> Found:
    catalogue = lake.catalogue()
    for version in (policy, metrics):
        if version not in catalogue.versions or catalogue.versions[version].state != "complete":
            raise UserError(
                f"{version} of this run is no longer in the lake: running its recipe again makes "
                "it anew."
            )
    return Found(
        run=run,
        iteration=iteration,
        policy=policy,
        metrics=metrics,
        parts=_parts(catalogue, policy, metrics),
    )


def _parts(catalogue: Catalogue, policy: str, metrics: str) -> dict[str, str]:
    """Part -> version: what the policy learned from (nearest of each noun), and what it was
    measured on.
    """
    learned, measured = catalogue.parents.get(policy, {}), catalogue.parents.get(metrics, {})
    parts = {role: version for role, version in measured.items() if role != "policy"}
    parts |= {
        role: learned[key]
        for role, key in (("init", "policy"), ("reference", "reference"))
        if key in learned
    }
    if "after" in parts and (asked := _nearest(catalogue, parts["after"], "prompts")):
        parts["held_out"] = asked
    datasets = [
        one
        for role, one in learned.items()
        if one in catalogue.versions and catalogue.versions[one].kind != "models"
    ]
    if datasets:
        newest = max(datasets, key=lambda one: catalogue.versions[one].opened_at)
        parts[catalogue.versions[newest].kind] = newest
        parts |= {
            kind: one
            for kind in _TRAINED_ON
            if kind not in parts and (one := _nearest(catalogue, newest, kind))
        }
    return parts


def _nearest(catalogue: Catalogue, version: str, kind: str) -> str | None:
    return next(
        (
            one
            for one in catalogue.sources(version)
            if one in catalogue.versions and catalogue.versions[one].kind == kind
        ),
        None,
    )


def own_versions(catalogue: Catalogue, found: Found) -> list[str]:
    """The versions that belong to this iteration: all behind its metrics, less those behind the
    policies that it began from.
    """
    before = {found.parts.get("init"), found.parts.get("reference")}
    for part in ("before", "completions"):
        before.add(catalogue.parents.get(found.parts.get(part, ""), {}).get("policy"))
    earlier = {version for one in before if one for version in (one, *catalogue.ancestors(one))}
    ends = dict.fromkeys([found.metrics, *metrics_of(catalogue, found.policy)])
    own = dict.fromkeys(version for end in ends for version in (end, *catalogue.ancestors(end)))
    return [one for one in own if one not in earlier and one in catalogue.versions]
