"""What differs between two versions of a noun, or between what two policies won and lost.

Rows of two versions have different ids, so they are matched by what they are about: a prompt by its
text's digest, a completion by its prompt and sample number, a verdict by its prompt, texts and
judge, a pair by its prompt and its two texts.
"""

from typing import Any

from dapflow.storage.errors import LakeError
from dapflow.storage.lake import Lake

SHOWN = 20  # changes in detail

_KEYED = {
    "prompts": "SELECT digest AS key, prompt, split AS value FROM own",
    "completions": "SELECT p.digest || ' ' || o.sample AS key, p.prompt, o.text AS value FROM own o JOIN asked p ON p.id = o.prompt_id",
    "verdicts": (
        "SELECT concat_ws(' ', p.digest, md5(c.text), md5(d.text)) AS key, p.prompt,"
        " CASE WHEN o.score IS NULL THEN o.outcome ELSE o.outcome || ' ' || round(o.score, 4) END "
        "AS value"
        " FROM own o JOIN asked p ON p.id = o.prompt_id JOIN answers c ON c.id = o.completion_id "
        "LEFT JOIN answers d ON d.id = o.other_id"
    ),
    "acceptances": (
        "SELECT p.digest || ' ' || md5(c.text) AS key, p.prompt, CASE WHEN o.accepted THEN "
        "'accepted' ELSE coalesce(o.note, 'rejected') END"
        " AS value FROM own o JOIN asked p ON p.id = o.prompt_id JOIN answers c ON c.id = "
        "o.completion_id"
    ),
    "pairs": (
        "SELECT md5(o.prompt) || ' ' || least(md5(o.chosen), md5(o.rejected)) || ' ' || "
        "greatest(md5(o.chosen), md5(o.rejected)) AS key,"
        " o.prompt, coalesce(o.dropped, 'chosen: ' || o.chosen) AS value FROM own o"
    ),
    "metrics": "SELECT name || coalesce(' at step ' || step, '') AS key, name AS prompt, round(value, 6)::VARCHAR AS value FROM own",
}


def diff(lake: Lake, a: str, b: str) -> dict[str, Any]:
    """`kind`, `a`, `b`, `rows` of each, `same`, `added`, `removed`, `changed` (counts), and
    `changes`: up to SHOWN of them in detail.

    Two policies are compared by their evaluations: `changed` are the prompts whose winner flipped,
    `added` and `removed` those that only one of them was judged on. Raises LakeError when the two
    are not of one noun, or not complete.
    """
    one, two = lake.ref(a), lake.ref(b)
    if one.kind != two.kind:
        raise LakeError(
            f"{one.kind}@{one.version} and {two.kind}@{two.version} are different nouns: compare "
            "two of the same."
        )
    keyed = [
        _winners(lake, ref.version) if ref.kind == "models" else _keyed(lake, ref.kind, ref.version)
        for ref in (one, two)
    ]
    joined = f"""WITH {
        ", ".join(
            f"{side} AS (SELECT *, row_number() OVER (PARTITION BY key ORDER BY value) AS copy FROM ({query}))"
            for side, query in zip("ab", keyed, strict=True)
        )
    }
    SELECT coalesce(a.prompt, b.prompt) AS prompt, a.value AS a, b.value AS b,
        CASE WHEN a.key IS NULL THEN 'added' WHEN b.key IS NULL THEN 'removed' WHEN a.value IS DISTINCT FROM b.value THEN 'changed'
        ELSE 'same' END AS change FROM a FULL JOIN b ON a.key = b.key AND a.copy = b.copy"""
    counts = {
        row["change"]: row["n"]
        for row in lake.rows(f"SELECT change, count(*) AS n FROM ({joined}) GROUP BY change")
    }
    changes = lake.rows(
        f"SELECT change, prompt, a, b FROM ({joined}) WHERE change != 'same' ORDER BY change, "
        f"prompt, a, b LIMIT {SHOWN}"
    )
    return {
        "kind": one.kind,
        "a": one.version,
        "b": two.version,
        "rows": [one.rows, two.rows],
        **{name: counts.get(name, 0) for name in ("same", "added", "removed", "changed")},
        "changes": changes,
    }


def _keyed(lake: Lake, kind: str, version: str) -> str:
    catalogue = lake.catalogue()
    above = [one for one in catalogue.sources(version) if one in catalogue.versions]
    listed = {
        noun: ", ".join(f"'{one}'" for one in above if catalogue.versions[one].kind == noun)
        or "NULL"
        for noun in ("prompts", "completions")
    }
    return f"""WITH own AS (FROM {kind} WHERE version = '{version}'), asked AS (FROM prompts WHERE version IN ({listed["prompts"]})),
        answers AS (FROM completions WHERE version IN ({listed["completions"]})) {_KEYED[kind]}"""


def _winners(lake: Lake, model: str) -> str:
    """Per held-out prompt of the model's evaluation: whether its answer beat the one of the policy
    before it.
    """
    catalogue = lake.catalogue()
    children = [
        one
        for one in catalogue.children.get(model, ())
        if catalogue.versions[one].kind == "metrics"
    ]
    measured = [
        one
        for one in children
        if catalogue.parents.get(one, {}).keys() & {"compared", "judged_before"}
    ]
    parents = catalogue.parents.get(measured[-1], {}) if measured else {}
    if "compared" not in parents and not {"judged_before", "judged_after"} <= set(parents):
        raise LakeError(
            f"models@{model} has no evaluation in this lake: only policies that have been "
            "measured can be compared."
        )
    asked = [
        one
        for one in catalogue.sources(measured[-1])
        if one in catalogue.versions and catalogue.versions[one].kind == "prompts"
    ]
    if (
        "compared" in parents
    ):  # by a judge that saw both: a score above one half says that the new one is better
        won = (
            "(SELECT prompt_id, avg(score) AS score FROM verdicts WHERE version = "
            f"'{parents['compared']}' GROUP BY prompt_id)"
        )
        return f"""SELECT p.digest AS key, p.prompt, CASE WHEN n.score > 0.5 THEN 'new' WHEN n.score < 0.5 THEN 'old' ELSE 'tie' END AS value
            FROM {won} n JOIN prompts p ON p.id = n.prompt_id
            WHERE n.score IS NOT NULL AND p.version IN ({", ".join(f"'{one}'" for one in asked)})"""
    scores = (
        "(SELECT prompt_id, avg(score) AS score FROM verdicts WHERE version = '{}' GROUP BY "
        "prompt_id)"
    )
    before, after = (scores.format(parents[side]) for side in ("judged_before", "judged_after"))
    return f"""SELECT p.digest AS key, p.prompt, CASE WHEN n.score > o.score THEN 'new' WHEN n.score < o.score THEN 'old' ELSE 'tie' END AS value
        FROM {after} n JOIN {before} o USING (prompt_id) JOIN prompts p ON p.id = n.prompt_id
        WHERE n.score IS NOT NULL AND o.score IS NOT NULL AND p.version IN ({", ".join(f"'{one}'" for one in asked)})"""
