"""The closing table drawn: for the terminal, as a page that loads nothing, and as Markdown. told:
what the flow `compare` returns.

print_closing(console, told)      closing_page(told)  ->  HTML      markdown(told)  ->  Markdown
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dapflow.flows.display.cells import span, table_of
from dapflow.flows.report.drawing import svg
from dapflow.flows.report.drawing.page import environment, now
from dapflow.flows.report.making import made_of
from dapflow.tasks.markdown import as_table, as_text

Row = Mapping[str, Any]
_INITIAL = "(initial policy)"
_FAILED = "failed: "
_ANY_WIDTH = 10_000  # columns: more than any table takes
_PROMPTS = "of prompts"
_NUMBERS = {  # header -> figure, and how it is written
    "reward": ("judge_reward_after", "{:.3f}"),
    "KL": ("kl_to_initial", "{:.3g}"),
    "length": ("length_after", "{:.1f}"),
    "tokens": ("tokens_sampled", "{:,.0f}"),
    "verdicts": ("verdicts", "{:,.0f}"),
}
_RIGHT = (_PROMPTS, *_NUMBERS, "time")
_NOTES = (
    "win rate: against the initial policy on the held-out prompts judged on both sides, with its "
    "95 % interval{seeds}",
    "against {first}: by how many points of them it wins more, paired, on the prompts that both "
    "were judged on",
    "reward: mean score of the evaluation's judge; KL: to the initial policy, nats per answer; "
    "length: tokens per answer",
    "tokens: sampled for training{budget}; time: of all work behind the policy, shared work "
    "counted for each method",
    "own samples: share of the answers trained on that the policy sampled itself, and their mean "
    "age in optimiser steps; over the rows of all iterations",
    "models in memory: at most, at an optimiser step; reference log-probabilities of offline data "
    "are computed before, and kept",
)


def outcome_rows(told: Row) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of what came of it."""
    first = told["methods"][0]["method"]
    headers = ["method", "win rate", _PROMPTS, f"against {first}", *_NUMBERS, "time"]
    initial = {name.replace("_before", "_after"): value for name, value in told["initial"].items()}
    rows = [
        [_INITIAL, "", "", "", *(_number(initial, *_NUMBERS[header]) for header in _NUMBERS), ""]
    ]
    for row in told["methods"]:
        if not row["figures"]:
            rows.append(
                [row["method"], _FAILED + row["failed"][0]["why"], *[""] * (len(headers) - 2)]
            )
            continue
        seconds, rate = row["figures"].get("seconds"), row["win_rate"]
        numbers = [_number(row["figures"], *_NUMBERS[header]) for header in _NUMBERS]
        took = "–" if seconds is None else span(seconds)
        rows.append(
            [
                row["method"],
                _rate(rate),
                f"{rate['prompts']:,}",
                _points(row["difference"]),
                *numbers,
                took,
            ]
        )
    return headers, rows


def making_rows(told: Row) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of what each was made of, as its run measured it."""
    headers = ["method", *made_of({})]
    return headers, [
        [row["method"], *made_of(row["figures"]).values()]
        for row in told["methods"]
        if row["figures"]
    ]


def notes(told: Row) -> Iterator[str]:
    """What the columns mean, and which runs failed."""
    seeds = f" over prompts and {told['seeds']} seeds" if told["seeds"] > 1 else " over prompts"
    budget = "" if told["budget_tokens"] is None else f", of {told['budget_tokens']:,} at most"
    for note in _NOTES:
        yield note.format(seeds=seeds, first=told["methods"][0]["method"], budget=budget)
    for row in told["methods"]:
        for failed in row["failed"]:
            yield f"{row['method']}, seed {failed['seed']}, failed: {failed['why']}"


def print_closing(console: Console, told: Row) -> None:
    """Both tables and what they mean."""
    console.print()
    for title, (headers, rows) in (
        ("What came of it", outcome_rows(told)),
        ("What each was made of, measured", making_rows(told)),
    ):
        table = table_of(
            headers[0], *(f">{header}" if header in _RIGHT else header for header in headers[1:])
        )
        table.title, table.title_justify, table.title_style = title, "left", "bold"
        table.columns[0].no_wrap = True
        for row in rows:
            table.add_row(*map(Text, row))
        fits = (
            console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).minimum
            <= console.width
        )  # words whole
        console.print(table if fits else _upright(title, headers, rows))
        console.print()
    for note in notes(told):
        console.print(Text(note, "dim"), soft_wrap=True)


def _upright(title: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The table for a terminal that is too narrow for it: each method a block, a line for each of
    its figures.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        show_header=False,
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, *cells in rows:
        table.add_row(Text(name, "bold"), "")
        for header, cell in zip(headers[1:], cells, strict=True):
            if cell:
                table.add_row(f"  {header}", Text(cell))
    return table


def closing_page(told: Row) -> str:
    """Both tables, the win rates as a picture, and the commands that do each run again."""
    drawn = [
        (row["method"], *(row["win_rate"][key] for key in ("value", "low", "high")))
        for row in told["methods"]
    ]
    drawn = [row for row in drawn if None not in row]
    return (
        environment()
        .get_template("closing.html")
        .render(
            told=told,
            forest=svg.intervals(drawn, "win rate against the initial policy, % (95 % interval)")
            if drawn
            else None,
            tables=[
                ("What came of it", *outcome_rows(told)),
                ("What each was made of, as its run measured it", *making_rows(told)),
            ],
            numbers=_RIGHT,
            notes=list(notes(told)),
            now=now(),
        )
    )


def markdown(told: Row) -> str:
    """Both tables."""
    return "\n\n".join(
        [
            *(as_table(*drawn) for drawn in (outcome_rows(told), making_rows(told))),
            *map(as_text, notes(told)),
        ]
    )


def _number(figures: Mapping[str, float | None], name: str, form: str) -> str:
    value = figures.get(name)
    return "–" if value is None else form.format(value)


def _rate(rate: Row) -> str:
    if rate["value"] is None:
        return "not measured"
    return f"{rate['value']:.1%}" + (
        "" if rate["low"] is None else f" [{rate['low']:.1%}, {rate['high']:.1%}]"
    )


def _points(found: Row | None) -> str:
    if found is None or found["value"] is None:
        return "" if found is None else "–"
    sides = (
        "" if found["low"] is None else f" [{100 * found['low']:+.1f}, {100 * found['high']:+.1f}]"
    )
    return f"{100 * found['value']:+.1f}{sides}"
