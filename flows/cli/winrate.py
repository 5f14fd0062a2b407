"""`dapflow winrate`: a file of judged answers -> win rates, raw and length-controlled, with 95 %
intervals. Reads and prints; no lake, no model.

Test: pytest tests/flows/cli/test_winrate.py
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from dapflow.flows.cli.options import Json, print_json
from dapflow.flows.display import bars
from dapflow.flows.display.cells import table_of
from dapflow.flows.display.screen import Screen

if TYPE_CHECKING:
    from dapflow.tasks.evaluation.winrate.rates import Result, SystemResult


def winrate(
    file: Path,
    /,
    *,
    instruction: str = "instruction",
    output: str = "output",
    baseline: str = "baseline",
    preference: str = "preference",
    generator: str | None = None,
    difficulty: bool = True,
    as_json: Json = False,
) -> None:
    """Win rates of answers against a baseline's, raw and length-controlled (AlpacaEval 2), with 95
    % intervals.

    The file (.parquet, .csv, .json, .jsonl; .gz) has a row for each judged answer; preference is
    the probability, from 0 to 1, that the output beats the baseline's answer, as one judge sees it.

    Example: dapflow winrate judged.parquet --preference p_beats_baseline

    Parameters
    ----------
    file
        The file.
    instruction
        What the column of instructions is called in the file.
    output
        That of the judged answers.
    baseline
        That of the baseline's answers.
    preference
        That of the probabilities.
    generator
        The column that says which system answered, in a file of several; `generator` where there is one.
    difficulty
        Of several systems: let the length control know which instructions are easy to win on.
    """
    with bars.waiting(f"read {file.name}"):
        from dapflow.tasks.evaluation.winrate.comparisons import read_comparisons
        from dapflow.tasks.evaluation.winrate.files import Names

        names = Names(
            instruction=instruction,
            output=output,
            baseline=baseline,
            preference=preference,
            generator=generator,
        )
        found = read_comparisons(file, names)
    with bars.counting("length control, then the bootstrap; systems done:") as count:
        from dapflow.tasks.evaluation.winrate.rates import win_rates

        result = win_rates(found, difficulty, advance=count)
    print_json(result.as_json()) if as_json else _print(Screen(), result)


def _print(console: Console, result: "Result") -> None:
    """The table, the best length-controlled rate first and suspects last, and what to know about
    it.
    """
    table = table_of("system", ">win rate", ">length-controlled", ">chars")
    for name, one in sorted(
        result.systems.items(), key=lambda item: (item[1].suspect, -_rank(item[1]))
    ):
        raw = _cell(one.win_rate, one.win_rate_low, one.win_rate_high)
        controlled = _cell(
            one.length_controlled_win_rate, one.length_controlled_low, one.length_controlled_high
        )
        table.add_row(
            Text(name + (" (suspect!)" if one.suspect else " !" if one.notes else "")),
            raw,
            controlled,
            f"{one.length_difference:+,.0f}",
        )
    console.print(table)
    what = (
        "50: as good as the baseline; [95 % interval]; chars: by how many the answers are longer "
        "than the baseline's"
    )
    console.print(
        Text(
            what + ("; !: see below." if any(one.notes for one in result.systems.values()) else ".")
        )
    )
    for sentence in [result.advice, *result.notes]:
        if sentence:
            console.print(Text(sentence))


def _rank(one: "SystemResult") -> float:
    return (
        one.win_rate if one.length_controlled_win_rate is None else one.length_controlled_win_rate
    )


def _cell(rate: float | None, low: float | None, high: float | None) -> Text:
    return Text(
        "-"
        if rate is None or low is None or high is None
        else f"{rate:.1f} [{low:.1f}, {high:.1f}]"
    )
