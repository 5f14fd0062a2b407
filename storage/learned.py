"""What a model learned from: how many rows at each level, and which.

pairs -> completions -> acceptances, verdicts (by judge) -> prompts; the answers go back through the
policies to the seeds.
"""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from dapflow.storage.catalogue import TESTED
from dapflow.storage.errors import LakeError, Remedy
from dapflow.storage.lake import Lake


def levels(lake: Lake, model: str) -> list[dict[str, Any]]:
    """Per level: `level`, `rows`, and what tells them apart (`by`). Raises LakeError when `model`
    is not a complete model.
    """
    query = f"""{_selection(lake, model)}
    SELECT 'pairs' AS level, count(*) AS rows, source AS by FROM trained GROUP BY source
    UNION ALL SELECT 'pairs left out', count(*), dropped FROM own WHERE dropped IS NOT NULL GROUP BY dropped
    UNION ALL SELECT 'completions', count(*), policy FROM answers GROUP BY policy
    UNION ALL SELECT 'acceptances', count(*), CASE WHEN accepted THEN 'accepted' ELSE coalesce(note, 'rejected') END FROM taken GROUP BY ALL
    UNION ALL SELECT 'verdicts', count(*), judge FROM said GROUP BY judge
    UNION ALL SELECT 'prompts', count(DISTINCT prompt_id), NULL FROM trained HAVING count(prompt_id) > 0"""
    order = ("pairs", "pairs left out", "completions", "acceptances", "verdicts", "prompts")
    found = [row for row in lake.rows(query) if row["rows"]]
    files = [row for row in found if row["level"] == "pairs" and row["by"] and ":" in row["by"]]
    if files:  # pairs from a file name their line: one level for all of them
        by = files[0]["by"].rpartition(":")[0]
        found = [row for row in found if row not in files] + [
            {"level": "pairs", "rows": sum(row["rows"] for row in files), "by": by}
        ]
    return sorted(found, key=lambda row: (order.index(row["level"]), -row["rows"]))


def learned_rows(lake: Lake, model: str) -> Iterator[pa.RecordBatch]:
    """One row per pair that the model was trained on: its id and those of its prompt, completions
    and verdicts, with judge, policy and seeds.
    """
    query = f"""{_selection(lake, model)},
    heard AS (SELECT completion_id, list(id ORDER BY id) AS ids, list(DISTINCT judge) AS judges FROM said GROUP BY completion_id)
    SELECT t.id AS pair, t.prompt_id AS prompt, t.chosen_id AS chosen, t.rejected_id AS rejected, t.margin,
        w.policy, w.seed AS chosen_seed, l.seed AS rejected_seed,
        hw.ids AS chosen_verdicts, hl.ids AS rejected_verdicts, hw.judges AS judges
    FROM trained t
    LEFT JOIN answers w ON w.id = t.chosen_id LEFT JOIN answers l ON l.id = t.rejected_id
    LEFT JOIN heard hw ON hw.completion_id = t.chosen_id LEFT JOIN heard hl ON hl.completion_id = t.rejected_id
    ORDER BY pair"""
    return lake.batches(query)


def _selection(lake: Lake, model: str) -> str:
    catalogue = lake.catalogue()
    info = catalogue.versions.get(model)
    if info is None or info.kind != "models" or info.state != "complete":
        raise LakeError(
            f"{model} is not a complete model of the lake: name one that is.", Remedy.LIST_MODELS
        )
    parents = catalogue.parents.get(model, {})
    learned = [
        one
        for role, one in parents.items()
        if role != TESTED and one in catalogue.versions and catalogue.versions[one].kind == "pairs"
    ]
    lists = [
        one
        for one in parents.values()
        if one in catalogue.versions and catalogue.versions[one].kind == "acceptances"
    ]
    above = {
        one
        for version in [*learned, *lists]
        for one in catalogue.sources(version)
        if one in catalogue.versions
    }
    kinds = ("completions", "acceptances", "verdicts")
    of = {
        kind: [model, *(one for one in above if catalogue.versions[one].kind == kind)]
        for kind in kinds
    }  # rounds keep theirs with the model
    of["acceptances"] += lists
    return f"""WITH own AS (SELECT * FROM pairs WHERE version IN ({_listed([model, *learned])})),
    trained AS (SELECT * FROM own WHERE dropped IS NULL),
    used AS (SELECT chosen_id AS id FROM trained UNION SELECT rejected_id FROM trained
        UNION SELECT completion_id FROM acceptances WHERE version IN ({_listed([model, *lists])}) AND accepted),
    answers AS (SELECT id, policy, seed FROM completions WHERE version IN ({_listed(of["completions"])}) AND id IN (FROM used)),
    taken AS (SELECT * FROM acceptances WHERE version IN ({_listed(of["acceptances"])}) AND completion_id IN (FROM used)),
    said AS (SELECT * FROM verdicts WHERE version IN ({_listed(of["verdicts"])})
        AND (completion_id IN (FROM used) OR other_id IN (FROM used)))"""


def _listed(versions: list[str]) -> str:
    return ", ".join(f"'{version}'" for version in versions) or "NULL"
