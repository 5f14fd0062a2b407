"""`dapflow judge`: labels a file of completions or pairs by any judge, through the lake: what has
been paid for is not paid again.

Test: pytest tests/flows/judges/test_judge_file.py
"""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from dapflow.flows.cli.options import Json, Lake, print_json
from dapflow.flows.display.cells import table_of
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.run_server import server_ahead
from dapflow.storage.errors import UserError
from dapflow.storage.replacing import replacing

_SHOWN = 10
_CELL = 60
Settings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set", help="A setting of the judge: judge.KEY=value, repeatable.", negative=()
    ),
]


def judge(
    file: Path,
    /,
    *,
    judge: str | None = None,
    settings: Settings = (),
    output: Path | None = None,
    column: str | None = None,
    lake: Lake = "lake",
    as_json: Json = False,
) -> None:
    """Label every row of a file: a score for each `completion`, or the probability that the first
    of a pair is better.

    The file (.parquet, .jsonl, .json, .csv; .gz) has `prompt` or `instruction`, and `completion`;
    or a pair: `chosen` and `rejected`, or `output` and `baseline`, or `first` and `second`.

    Example: dapflow judge answers.jsonl --judge shorter --output judged.parquet Example: dapflow
    judge pairs.parquet --set judge.endpoint.model=gpt-4.1-mini --set judge.budget.max_cost_usd=1

    Parameters
    ----------
    file
        The file.
    judge
        As `--set judge=` of a recipe: a program (shorter, ./mine.py:score), models@VERSION of the lake, or settings in braces.
    output
        A .parquet or .jsonl file for the rows with their verdicts; without it some are shown.
    column
        What the verdict's column is to be called: `score` or `preference` if not said.
    """
    from dapflow.flows.server.environment import prepare

    if output is not None and output.suffix not in (".parquet", ".jsonl"):
        raise UserError(f"{output} is neither .parquet nor .jsonl.")
    if output is not None and not output.parent.is_dir():  # said before anything is paid for
        raise UserError(
            f"There is no folder {output.parent} for {output.name}: make it, or name another."
        )
    console = Screen(stderr=True)
    prepare(lake)
    with server_ahead():
        from dapflow.flows.display.console import ConsoleReporter
        from dapflow.flows.judge_file import columns_of, judge_file, who_judges
        from dapflow.storage import Lake as OpenLake
        from dapflow.tasks.prompts.answer_file import sheet_of
        from dapflow.tasks.step import use_lake
        from dapflow.tasks.step.progress import report_to

        wanted = [*([f"judge={judge}"] if judge is not None else []), *settings]
        sheet = sheet_of(file)
        columns_of(sheet, column)  # says what is wrong before anything is run
        with OpenLake(lake) as opened, use_lake(opened):
            who_judges(sheet, wanted)
    reporter = ConsoleReporter(console)
    with reporter, report_to(reporter):
        found = judge_file(str(file), wanted, lake, column)
    rows: list[dict[str, Any]] = found["rows"]
    if output is not None:
        _write(output, rows)
    if as_json:
        told = {"output": str(output), "rows": len(rows)} if output is not None else {"rows": rows}
        print_json(found | told)
    else:
        _print(Screen(), found, output)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """All rows, or none: a file that is there is replaced when the new one is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # a field that the first row lacks is kept too
    names = dict.fromkeys(name for row in rows for name in row)
    lines = (f"{json.dumps(row, ensure_ascii=False, default=str)}\n" for row in rows)
    try:
        with replacing(path) as partial:
            if path.suffix == ".parquet":
                columns = {name: [row.get(name) for row in rows] for name in names}
                pq.write_table(pa.table(columns), partial)
            else:
                partial.write_text("".join(lines), encoding="utf-8")
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error


def _print(console: Console, found: dict[str, Any], output: Path | None) -> None:
    if output is None:
        rows, new = found["rows"], found["columns"]
        names = [*(name for name in rows[0] if not name.startswith(new)), *new[:2]]
        table = table_of(*names)
        for row in rows[:_SHOWN]:
            table.add_row(*(_cell(row.get(name)) for name in names))
        console.print(table)
        if len(rows) > _SHOWN:
            console.print(
                Text(
                    f"... and {len(rows) - _SHOWN:,} more: --output FILE.parquet or --json gives "
                    "all."
                )
            )
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in found["outcomes"].items())
    where = "" if output is None else f", in {output}"
    console.print(
        Text(f"{len(found['rows']):,} rows judged by {found['judge']}: {outcomes}{where}")
    )
    if found["calls"]:
        cost = "at a price that nobody knows" if found["usd"] is None else f"${found['usd']:.4f}"
        console.print(Text(f"{found['calls']:,} calls, {found['tokens']:,} tokens, {cost}"))


def _cell(value: Any) -> Text:
    text = f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(text.split())
    return Text(text if len(text) <= _CELL else f"{text[: _CELL - 3]}...")
