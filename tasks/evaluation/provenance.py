"""What a policy was made of and what making it took, as figures: found in the lake, not in the
recipe.

    measure_provenance(policy, start, before, judged)  ->  metrics: people's prompts, own samples, feedback, calls of an API, models
Test: pytest tests/flows/cli/test_compare.py
"""

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from dapflow.storage import DatasetRef, Lake, ModelRef
from dapflow.storage.catalogue import Catalogue
from dapflow.storage.ledger import spent_on
from dapflow.tasks.figures import Figure, rows_of
from dapflow.tasks.judging.judges.base import EMPTY, IDENTICAL
from dapflow.tasks.step import Out, step
from dapflow.tasks.step.work import Activity

Row = dict[str, Any]
_LEARNED = ("pairs", "acceptances")
# What a version's step did (tasks/step/work.py) where its rows count: pairs that can be people's,
# not those read from what a policy has written; answers, not replies that prompts are read from;
# verdicts that somebody was asked for, not those made of others'.
_LABELLED: frozenset[Activity] = frozenset({"loading", "pairing"})
_ANSWERED: frozenset[Activity] = frozenset({"sampling", "training"})
_JUDGED: frozenset[Activity] = frozenset({"judging", "training"})
_FIGURES = 13
_NO_ROWS = "the rows that it was trained on are no longer in the lake"


@step(
    "metrics",
    title="measure how {policy} was made",
    expects=lambda **_: _FIGURES,
    activity="measuring",
)
def measure_provenance(
    out: Out, policy: ModelRef, start: ModelRef, before: ModelRef, judged: list[DatasetRef]
) -> None:
    """Of one iteration: the trainings from the weights of `start` to `policy`, and what that took
    beyond `before`, the policy it began with.

    judged: the completions that a judge was asked about in this iteration; rounds keep theirs with
    the policy.
    """
    catalogue = out.lake.catalogue()
    trainings = list(_trainings(out.lake, policy, start))
    behind = {policy.version, *catalogue.learned_from(policy.version)}
    own = behind - {
        one
        for ref in (start, before)
        for one in (ref.version, *catalogue.learned_from(ref.version))
    }
    figures = [
        *people_figures(out.lake, catalogue, behind, trainings),
        *_own_samples(out.lake, trainings),
        *_renewed(out.lake, catalogue, trainings, {ref.version for ref in judged}),
        *taken_figures(out.lake, catalogue, own),
        *_models(out.lake, trainings),
    ]
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def _trainings(lake: Lake, policy: ModelRef, start: ModelRef) -> Iterator[str]:
    """The models of this iteration, the newest first: several where it trains several times."""
    version: str | None = policy.version
    while version is not None and version != start.version:
        yield version
        [row] = lake.rows("SELECT parent FROM models WHERE version = ?", [version])
        version = row["parent"]


def _learned(catalogue: Catalogue, training: str) -> list[str]:
    """The versions whose pairs or accepted answers a training has learned from; of rounds its own."""
    parents = catalogue.parents.get(training, {}).values()
    return [training, *(one for one in parents if catalogue.versions[one].kind in _LEARNED)]


def people_figures(
    lake: Lake, catalogue: Catalogue, behind: set[str], trainings: Sequence[str]
) -> Iterator[Figure]:
    """Prompts that people labelled or answered, for this policy or for its reward models; and the
    share of rows that are their labels.
    """
    kinds = {version: catalogue.versions[version].kind for version in behind}
    verdicts = [version for version, kind in kinds.items() if kind == "verdicts"]
    asked = _asked(lake, verdicts)
    by_machine = {version for version in verdicts if "person" not in asked.get(version, {})}
    pairs = [version for version, kind in kinds.items() if kind == "pairs"]
    labelled = [
        version
        for version in _that(catalogue, pairs, _LABELLED)
        if by_machine.isdisjoint(catalogue.sources(version))
    ]
    [row] = lake.rows(
        "SELECT count(*) AS n FROM (SELECT prompt FROM pairs WHERE version IN (SELECT unnest(?)) "
        "AND dropped IS NULL UNION"
        " SELECT p.prompt FROM completions c JOIN prompts p ON p.id = c.prompt_id"
        " WHERE c.version IN (SELECT unnest(?)) AND p.version IN (SELECT unnest(?)) AND c.policy "
        "IS NULL)",
        [
            labelled,
            *(
                [one for one, kind in kinds.items() if kind == noun]
                for noun in ("completions", "prompts")
            ),
        ],
    )
    yield Figure(name="people_prompts", value=float(row["n"]), note=_without(catalogue, pairs))
    learned = [version for training in trainings for version in _learned(catalogue, training)]
    counts = {row["version"]: row["n"] for row in _trained_rows(lake, learned)}
    total, by_people = (
        sum(counts.get(one, 0) for one in some)
        for some in (learned, [one for one in learned if one in labelled])
    )
    yield Figure(
        name="people_share",
        value=by_people / total if total else None,
        note=_without(catalogue, learned) if total else _NO_ROWS,
    )


def _that(catalogue: Catalogue, versions: Collection[str], did: Collection[Activity]) -> list[str]:
    """Those of the versions whose step did one of these."""
    return [version for version in versions if catalogue.versions[version].activity in did]


def _without(catalogue: Catalogue, versions: Collection[str]) -> str | None:
    """That some of the versions do not count, where nobody knows what their step did."""
    unknown = sum(catalogue.versions[version].activity is None for version in versions)
    return f"without what older software made ({unknown:,} of the datasets)" if unknown else None


def _asked(lake: Lake, versions: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Who was asked for the verdicts of each version, where it was nobody of the lake: the judge's
    settings; {} for a name.
    """
    rows = lake.rows(
        "SELECT version, parameters FROM versions WHERE version IN (SELECT unnest(?))", [versions]
    )
    judges = {row["version"]: json.loads(row["parameters"] or "{}").get("by") for row in rows}
    return {
        version: by if isinstance(by, dict) else {}
        for version, by in judges.items()
        if by is not None
    }


def _trained_rows(lake: Lake, versions: Sequence[str]) -> list[Row]:
    """How many rows of each version were trained on."""
    return lake.rows(
        "SELECT version, count(*) AS n FROM (SELECT version FROM pairs WHERE version IN (SELECT "
        "unnest($1)) AND dropped IS NULL"
        " UNION ALL SELECT version FROM acceptances WHERE version IN (SELECT unnest($1)) AND "
        "accepted) GROUP BY version",
        [versions],
    )


def _own_samples(lake: Lake, trainings: Sequence[str]) -> Iterator[Figure]:
    """What the trainings say of how on-policy they were, each as many times as it has taken steps."""
    steps = {
        row["version"]: json.loads(row["recipe"]).get("steps", 0)
        for row in lake.rows(
            "SELECT version, recipe FROM models WHERE version IN (SELECT unnest(?))", [trainings]
        )
    }
    for name, why in (
        ("own_share", _NO_ROWS),
        ("mean_lag", "no answer was sampled by this policy or one that it was trained from"),
    ):
        told = [(steps[row["version"]], row["value"]) for row in _told(lake, trainings, name)]
        weight = sum(count for count, _ in told)
        value = sum(count * one for count, one in told) / weight if weight else None
        yield Figure(name=name, value=value, note=why if value is None else None)


def _told(lake: Lake, versions: Sequence[str], name: str) -> list[Row]:
    query = (
        "SELECT version, value FROM metrics WHERE version IN (SELECT unnest(?)) AND name = ? AND "
        "step IS NULL AND value IS NOT NULL"
    )
    return lake.rows(query, [versions, name])


def _renewed(
    lake: Lake, catalogue: Catalogue, trainings: Sequence[str], judged: set[str]
) -> Iterator[Figure]:
    """How many rows were trained on, and the share of those whose label a judge has given in this
    iteration.
    """
    total, fresh = 0, 0
    for training in trainings:
        [row] = lake.rows(
            "WITH answers AS (SELECT id, unnest([chosen_id, rejected_id]) AS answer FROM pairs"
            " WHERE version IN (SELECT unnest($1)) AND dropped IS NULL"
            " UNION ALL SELECT id, completion_id FROM acceptances WHERE version IN (SELECT "
            "unnest($1)) AND accepted),"
            " trained AS (SELECT bool_and(coalesce(list_contains($2, split_part(answer, '-', 1)), "
            "false)) AS fresh FROM answers GROUP BY id)"
            " SELECT count(*) AS total, count(*) FILTER (WHERE fresh) AS fresh FROM trained",
            [_learned(catalogue, training), [*judged, training]],
        )
        total, fresh = total + row["total"], fresh + row["fresh"]
    aside = sum(row["value"] for row in _told(lake, trainings, "set_aside_rows"))
    yield Figure(name="trained_rows", value=float(total - aside))
    yield Figure(
        name="renewed_share",
        value=fresh / total if total else None,
        note=None if total else _NO_ROWS,
    )


def taken_figures(lake: Lake, catalogue: Catalogue, own: set[str]) -> Iterator[Figure]:
    """Tokens, verdicts, and what was asked of an API, of the iteration's own versions, in whichever
    run they were made.
    """
    versions = sorted(own)
    asked = _asked(lake, versions)
    by_api = [version for version in versions if "endpoint" in asked.get(version, {})]
    [sampled] = lake.rows(
        "SELECT coalesce(sum(len(c.token_ids)), 0)::BIGINT AS tokens,"
        " count(*) FILTER (WHERE len(c.token_ids) = 0 AND c.finish_reason <> 'refused') AS "
        "untold, count(m.version) AS by_endpoint"
        " FROM completions c LEFT JOIN models m ON m.version = c.policy AND m.role = 'endpoint'"
        " WHERE c.version IN (SELECT unnest(?)) AND c.policy IS NOT NULL",
        [_that(catalogue, versions, _ANSWERED)],
    )
    unknown = _without(catalogue, versions)
    untold = (
        f"without {sampled['untold']:,} answers whose tokens the server does not tell"
        if sampled["untold"]
        else None
    )
    missing = ", ".join(note for note in (untold, unknown) if note) or None
    yield Figure(name="tokens_sampled", value=float(sampled["tokens"]), note=missing)
    verdicts = _verdicts(lake, _that(catalogue, versions, _JUDGED))
    needed = _verdicts(lake, by_api)
    yield Figure(name="verdicts", value=float(verdicts), note=unknown)
    yield Figure(name="api_answers", value=float(needed + sampled["by_endpoint"]))
    calls, _, usd = spent_on(lake, own)
    yield Figure(name="api_calls", value=float(calls))
    yield Figure(name="api_usd", value=usd, note="nobody knows the price" if usd is None else None)


def _verdicts(lake: Lake, versions: Sequence[str]) -> int:
    """How many somebody was asked for."""
    [row] = lake.rows(
        "SELECT count(*) AS n FROM verdicts WHERE version IN (SELECT unnest(?)) AND outcome NOT "
        "IN ('refused', 'over_budget')"
        " AND coalesce(note, '') NOT IN (?, ?)",
        [versions, IDENTICAL, EMPTY],
    )
    return row["n"]


def _models(lake: Lake, trainings: Sequence[str]) -> Iterator[Figure]:
    """The most models, and bytes of weights, that the process held at an optimiser step."""
    for name in ("models_in_memory", "model_bytes"):
        told = [row["value"] for row in _told(lake, trainings, name)]
        yield Figure(
            name=name,
            value=max(told) if told else None,
            note=None if told else "the training has counted none",
        )
