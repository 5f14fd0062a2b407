"""What came of an iteration: who won each held-out prompt, the verdict in words, the examples a
person looks at. Read with SQL, texts last.

prompt_rows(lake, found, known)  ->  a row per judged prompt: digest, win (0 to 1), scores and lengths of both answers
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from dapflow.flows.report.find import Found
from dapflow.storage import Lake
from dapflow.tasks.evaluation.contamination import left_out
from dapflow.tasks.statistics import prompts_to_tell

Row = dict[str, Any]
_ANSWERS = """SELECT c.prompt_id, c.id, c.sample, c.finish_reason, len(c.token_ids) AS tokens FROM completions c WHERE c.version = ?"""
_SCORED = """
WITH b AS ({answers}), a AS ({answers}),
    vb AS (SELECT completion_id, score FROM verdicts WHERE version = ? AND outcome = 'scored'),
    va AS (SELECT completion_id, score FROM verdicts WHERE version = ? AND outcome = 'scored'),
    met AS (SELECT a.prompt_id, b.id AS before_id, a.id AS after_id, b.tokens AS before_tokens, a.tokens AS after_tokens,
        vb.score AS before_score, va.score AS after_score, a.sample + b.sample AS place
        FROM a JOIN b USING (prompt_id) JOIN vb ON vb.completion_id = b.id JOIN va ON va.completion_id = a.id)
SELECT p.digest, p.id AS prompt_id, avg(sign(after_score - before_score) / 2 + 0.5) AS win, avg(after_score - before_score) AS change,
    avg(before_score) AS before_score, avg(after_score) AS after_score,
    avg(before_tokens) AS before_tokens, avg(after_tokens) AS after_tokens, arg_min(before_id, place) AS before_id, arg_min(after_id, place) AS after_id
FROM met m JOIN prompts p ON p.id = m.prompt_id WHERE p.version = ? AND p.id NOT IN (SELECT unnest(?)) GROUP BY p.digest, p.id ORDER BY p.id"""
_COMPARED = """
WITH b AS ({answers}), a AS ({answers}),
    met AS (SELECT v.prompt_id, b.id AS before_id, a.id AS after_id, b.tokens AS before_tokens, a.tokens AS after_tokens, v.score,
        CASE v.outcome WHEN 'win' THEN 1.0 WHEN 'tie' THEN 0.5 ELSE 0.0 END AS won, a.sample + b.sample AS place
        FROM verdicts v JOIN a ON a.id = v.completion_id JOIN b ON b.id = v.other_id
        WHERE v.version = ? AND v.outcome IN ('win', 'tie', 'lose'))
SELECT p.digest, p.id AS prompt_id, avg(won) AS win, avg(2 * score - 1) AS change, NULL AS before_score, NULL AS after_score,
    avg(before_tokens) AS before_tokens, avg(after_tokens) AS after_tokens, arg_min(before_id, place) AS before_id, arg_min(after_id, place) AS after_id
FROM met m JOIN prompts p ON p.id = m.prompt_id WHERE p.version = ? AND p.id NOT IN (SELECT unnest(?)) GROUP BY p.digest, p.id ORDER BY p.id"""


def prompt_rows(lake: Lake, found: Found, known: Set[str]) -> list[Row]:
    """One row per prompt judged on both sides, less those `known_from_training`, in the order of
    the prompts; empty where the lake no longer has what was judged."""
    parts = found.parts
    compared = "compared" in parts
    needed = (
        "before",
        "after",
        *(("compared",) if compared else ("judged_before", "judged_after")),
        "held_out",
    )
    if not set(needed) <= parts.keys():
        return []
    query = (_COMPARED if compared else _SCORED).format(answers=_ANSWERS)
    return lake.rows(query, [*(parts[part] for part in needed), sorted(known)])


def known_from_training(lake: Lake, parts: Mapping[str, str]) -> set[str]:
    """The held-out prompts, by id, that do not count because they are too like training prompts.
    parts: role -> version of an evaluation.
    """
    return left_out(lake.rows_of(parts["overlap"])) if "overlap" in parts else set()


def verdict_of(low: float, high: float, even: float = 0.5) -> str:
    """The outcome in words: better, worse, or that the interval leaves it open."""
    return "better" if low > even else "worse" if high < even else "cannot tell"


def sentence_of(
    outcome: str, prompts: int, win_rate: float, low: float, high: float, spread: float | None
) -> str:
    """What the outcome means, in a sentence; where it is open, how many prompts would settle a
    difference as large as the one seen.

    spread: standard deviation of the prompts' wins; None where they are not known: they are spread
    as wins and losses at most.
    """
    if outcome != "cannot tell":
        return (
            f"The new policy's answers are {outcome} than the old one's: the 95 % interval lies "
            f"{'above' if outcome == 'better' else 'below'} one half."
        )
    seen = abs(win_rate - 0.5)
    if seen < 0.005:
        return (
            f"The two policies are level on these {prompts:,} prompts; one half lies inside the 95 "
            "% interval."
        )
    open_half = f"One half lies inside the 95 % interval [{low:.1%}, {high:.1%}]."
    if prompts < 2:
        return f"{open_half} One prompt says nothing about others."
    needed = prompts_to_tell(seen, 0.5 if spread is None else spread)
    about = (
        f"{'at most' if spread is None else 'about'} {max(needed, prompts + 1):,} "
        f"prompts{'' if spread is None else ' that spread like these'}"
    )
    return (
        f"{open_half} To settle a difference as large as the one seen "
        f"({100 * (win_rate - 0.5):+.1f} points) would take {about}; "
        f"there were {prompts:,}."
    )


def chosen_examples(
    rows: Sequence[Mapping[str, Any]], count: int
) -> list[tuple[str, Mapping[str, Any]]]:
    """Which prompts to show, and why: those whose answer gained most and lost most, in turn, and
    one in the middle.
    """
    ranked = sorted(
        (row for row in rows if row["change"] is not None), key=lambda row: -row["change"]
    )
    if not ranked:
        return []
    gained, lost = (
        [row for row in ranked if row["change"] > 0],
        [row for row in reversed(ranked) if row["change"] < 0],
    )
    chosen: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for place in range(count):
        for why, side in (("gained most", gained), ("lost most", lost)):
            if place < len(side):
                chosen.setdefault(side[place]["prompt_id"], (why, side[place]))
        if place == 0:
            middle = ranked[len(ranked) // 2]
            chosen.setdefault(middle["prompt_id"], ("in the middle", middle))
    return list(chosen.values())[:count]


def answers_of(lake: Lake, versions: Sequence[str], ids: Sequence[str]) -> dict[str, Row]:
    """Completions of these versions by id: `text` and `finish_reason`."""
    query = (
        "SELECT id, text, finish_reason FROM completions WHERE version IN (SELECT unnest(?)) AND "
        "id IN (SELECT unnest(?))"
    )
    return {row["id"]: row for row in lake.rows(query, [versions, ids])}


def examples(lake: Lake, found: Found, rows: Sequence[Mapping[str, Any]], count: int) -> list[Row]:
    """The chosen prompts with both answers in full."""
    chosen = chosen_examples(rows, count)
    answers = [row[side] for _, row in chosen for side in ("before_id", "after_id")]
    versions = [found.parts["before"], found.parts["after"]] if chosen else []
    told = answers_of(lake, versions, answers)
    prompts = {
        row["id"]: row["prompt"]
        for row in lake.rows(
            "SELECT id, prompt FROM prompts WHERE version = ? AND id IN (SELECT unnest(?))",
            [found.parts.get("held_out", ""), [row["prompt_id"] for _, row in chosen]],
        )
    }
    return [
        {
            "why": why,
            "prompt_id": row["prompt_id"],
            "prompt": prompts[row["prompt_id"]],
            **{side: told[row[f"{side}_id"]]["text"] for side in ("before", "after")},
            **{
                f"{side}_cut": told[row[f"{side}_id"]]["finish_reason"] == "length"
                for side in ("before", "after")
            },
            **{
                name: row[name]
                for name in (
                    "win",
                    "change",
                    "before_score",
                    "after_score",
                    "before_tokens",
                    "after_tokens",
                )
            },
        }
        for why, row in chosen
    ]
