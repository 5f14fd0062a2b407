"""`dapflow agreement`: how far two judges, or a judge and people, agree; of verdicts of the lake,
or of two columns of a file.

Test: pytest tests/flows/cli/test_agreement.py
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dapflow.flows.cli.options import Json, Lake, print_json, reading
from dapflow.flows.display.cells import table_of
from dapflow.flows.display.screen import Screen
from dapflow.storage.errors import UserError
from dapflow.storage.lake import Lake as OpenLake

if TYPE_CHECKING:
    from dapflow.tasks.evaluation.agreement import Agreement, Judgement

# Which of two completions a version's verdicts prefer: as they were compared, or by their scores.
_PREFERENCES = """
SELECT least(completion_id, other_id) AS a, greatest(completion_id, other_id) AS b,
       CASE WHEN completion_id < other_id THEN score ELSE 1 - score END AS p
FROM verdicts WHERE version = ? AND outcome IN ('win', 'lose', 'tie')
UNION ALL
SELECT x.completion_id, y.completion_id, CASE WHEN x.score = y.score THEN 0.5 WHEN x.score > y.score THEN 1.0 ELSE 0.0 END
FROM verdicts x JOIN verdicts y ON y.version = x.version AND y.prompt_id = x.prompt_id AND x.completion_id < y.completion_id
WHERE x.version = ? AND x.outcome = 'scored' AND y.outcome = 'scored'
"""


def agreement(
    source: str,
    other: str | None = None,
    /,
    *,
    first: str = "first",
    second: str = "second",
    instruction: str = "instruction",
    output: str = "output",
    baseline: str = "baseline",
    picture: Path | None = None,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """How far two judges, or a judge and people, agree on the better of two answers: accuracy,
    kappa, confusion, by length difference.

    Example: dapflow agreement verdicts@3f9c01 verdicts@77ab10 Example: dapflow agreement
    labelled.parquet --first person --second judge --picture agreement.png Example: dapflow
    agreement judged.jsonl --first person --second preference --instruction prompt --output chosen
    --baseline rejected

    Parameters
    ----------
    source
        A version of verdicts in the lake; or a file (.parquet, .csv, .json, .jsonl) with `instruction`, `output`, `baseline` and two
        columns of the probability, 0 to 1, that the output is the better of the two answers.
    other
        The other version of verdicts, on the same completions.
    first
        What one judge's column is called in the file.
    second
        What the other's is called.
    instruction
        What the column of prompts is called in the file.
    output
        The column of the answers whose probability it is.
    baseline
        The column of the answers that they were compared with.
    picture
        A PNG to draw the agreement by length difference into.
    """
    from dapflow.tasks.evaluation.agreement import agreement_of

    if other is None:
        judgements, names = (
            _of_file(Path(source), instruction, output, baseline, first, second),
            (first, second),
        )
    else:
        with reading(lake) as opened:
            judgements, names = _of_lake(opened, source, other), (source, other)
    found = agreement_of(judgements)
    if picture is not None:
        from dapflow.tasks.evaluation.agreement_picture import agreement_by_length

        picture.write_bytes(agreement_by_length(found))
    print_json(found.as_json()) if as_json else _print(Screen(), found, names)


def _of_file(
    path: Path, instruction: str, output: str, baseline: str, first: str, second: str
) -> "list[Judgement]":
    from dapflow.tasks.evaluation.agreement import Judgement
    from dapflow.tasks.evaluation.winrate.comparisons import read_comparisons
    from dapflow.tasks.evaluation.winrate.files import Names

    names = Names(
        instruction=instruction, output=output, baseline=baseline, preference=first, second=second
    )
    rows = read_comparisons(path, names).rows
    return [
        Judgement(one=row.preference, other=row.second, longer=row.delta)
        for row in rows
        if row.second is not None
    ]


def _of_lake(lake: OpenLake, source: str, other: str) -> "list[Judgement]":
    from dapflow.tasks.evaluation.agreement import Judgement

    versions = [lake.ref(name) for name in (source, other)]
    for name, ref in zip((source, other), versions, strict=True):
        if ref.kind != "verdicts":
            raise UserError(
                f"{name} holds {ref.kind}, not verdicts: `dapflow datasets --kind verdicts` lists "
                "those that can be compared."
            )
    query = f"""
        WITH one AS ({_PREFERENCES}), other AS ({_PREFERENCES})
        SELECT one.p AS p, other.p AS q, length(x.text) - length(y.text) AS longer
        FROM one JOIN other USING (a, b) JOIN completions x ON x.id = a JOIN completions y ON y.id = b ORDER BY a, b
    """
    asked = [version for ref in versions for version in (ref.version, ref.version)]
    return [
        Judgement(one=row["p"], other=row["q"], longer=row["longer"])
        for row in lake.rows(query, asked)
    ]


def _print(console: Console, found: "Agreement", names: tuple[str, str]) -> None:
    console.print(f"{found.n:,} pairs of answers that both have judged", highlight=False)
    console.print(_line("agreement", found.agreement, found.agreement_low, found.agreement_high))
    console.print(
        _line(
            f"accuracy, of {found.decided:,} that both decide",
            found.accuracy,
            found.accuracy_low,
            found.accuracy_high,
        )
    )
    console.print(
        Text(f"{'Cohen kappa':<42}{'-' if found.kappa is None else f'{found.kappa:.2f}'}")
    )
    for name, share in zip(
        names, (found.one_prefers_longer, found.other_prefers_longer), strict=True
    ):
        console.print(_line(f"{name} prefers the longer answer", share))
    confusion = table_of(
        f"{names[0]} says", *(f">{names[1]}: {outcome}" for outcome in found.confusion)
    )
    for outcome, counts in found.confusion.items():
        confusion.add_row(outcome, *(f"{count:,}" for count in counts.values()))
    console.print(confusion)
    lengths = table_of(">lengths differ by, characters", ">pairs", ">agreement")
    for one in found.by_length:
        lengths.add_row(
            f"{one.least:,} to {one.most:,}",
            f"{one.n:,}",
            f"{one.agreement:.1%} [{one.low:.1%}, {one.high:.1%}]",
        )
    console.print(lengths)


def _line(name: str, share: float | None, *interval: Any) -> Text:
    low_high = (
        f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval and interval[0] is not None else ""
    )
    return Text(f"{name:<42}{'-' if share is None else f'{share:.1%}'}{low_high}")
