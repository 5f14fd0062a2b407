"""`dapflow policies`, `promote`, `rollback`: the line of promoted policies, for people. They start
quickly (no Prefect, no torch).

Test: pytest tests/flows/cli/test_policies.py
"""

from typing import Any

from rich.text import Text

from dapflow.flows.cli.options import Json, Lake, existing, print_json, reading
from dapflow.flows.display.screen import Screen, say
from dapflow.storage.errors import UserError
from dapflow.storage.promotions import Decision, decide, line_from, line_of, newest_line, promotions
from dapflow.storage.refs import ModelRef

_SHOWN = ("win_rate", "length_growth", "invalid_rate", "judge_agreement", "kl_to_initial")


def policies(*, lake: Lake = "lake", as_json: Json = False) -> None:
    """Show the line of promoted policies, night by night: what was promoted, what was not and why,
    with its figures.

    Example: dapflow policies --lake ./lake
    """
    with reading(lake) as opened:
        rows = promotions(opened)
    if as_json:
        print_json(rows)
    elif not rows:
        print("No night has decided anything yet.")
    else:
        for line in dict.fromkeys(row["line"] for row in rows):
            own = [row for row in rows if row["line"] == line]
            say(f"line {line[:8]}, * the promoted policy")
            for row in own:
                Screen().print(_entry(row, row is _head(own)), highlight=False)


def promote(
    policy: str, /, *, reason: str = "by hand", lake: Lake = "lake", as_json: Json = False
) -> None:
    """Promote a policy by hand: the next night starts from it.

    Example: dapflow promote models@3f9c01 --reason "read a hundred answers"

    Parameters
    ----------
    policy
        A policy of the lake, the beginning of its version, or `newest`.
    reason
        Why, for those who read `dapflow policies`.
    """
    with existing(lake) as opened:
        ref = opened.ref(policy)
        if not isinstance(ref, ModelRef) or opened.model(ref)["role"] != "policy":
            raise UserError(
                f"{policy} is not a policy: `dapflow datasets --kind models` lists the models."
            )
        line = line_of(opened, line_from(opened, ref))
        row = decide(
            opened, line, Decision(action="promote by hand", candidate=ref.version, reason=reason)
        )
    _tell(row, as_json)


def rollback(*, reason: str = "by hand", lake: Lake = "lake", as_json: Json = False) -> None:
    """Go back to the policy that was promoted before the present one. Nothing is lost: `dapflow
    promote` brings it back.

    Example: dapflow rollback --reason "too talkative"

    Parameters
    ----------
    reason
        Why, for those who read `dapflow policies`.
    """
    with existing(lake) as opened:
        line = line_of(opened, newest_line(opened))
        if line.policy is None:
            raise UserError(
                "There is nothing to go back to: the promoted policy is the one that the line "
                "began with."
            )
        before = _before(promotions(opened, line.name), line.policy)
        row = decide(
            opened, line, Decision(action="roll back", candidate=before or "", reason=reason)
        )
    _tell(row, as_json)


def _before(rows: list[dict[str, Any]], policy: str) -> str | None:
    """The policy that `policy` was promoted after: the first time that it was."""
    return next(
        row["previous"] for row in rows if row["policy"] == policy and row["action"] != "keep"
    )


def _tell(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        say(
            "The promoted policy is "
            f"{'models@' + row['policy'] if row['policy'] else 'the one that the line began with'}."
        )


def _entry(row: dict[str, Any], promoted: bool) -> Text:
    """A night in sentences, which wrap where the terminal is narrow: columns of intervals would be
    cut.
    """
    recipe = f"  {row['recipe']}" if row["recipe"] else ""
    said = (
        f"{'*' if promoted else ' '} {row['decided_at']:%Y-%m-%d %H:%M}{recipe}  {_candidate(row)} "
        f"{row['action']}: {row['reason']}"
    )
    figures = [
        f"{name.replace('_', ' ')} {_figure(row['figures'][name])}"
        for name in _SHOWN
        if name in row["figures"]
    ]
    return Text(
        said + (f"\n    {', '.join(figures)}" if figures else ""),
        style="dim" if row["action"] == "keep" else "",
    )


def _candidate(row: dict[str, Any]) -> str:
    return row["candidate"][:8] or ("none" if row["action"] == "keep" else "the first")


def _head(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return next((row for row in reversed(rows) if row["action"] != "keep"), None)


def _figure(figure: list[float | None] | None) -> str:
    if figure is None or figure[0] is None:
        return "not measured"
    value, low, high = figure
    return f"{value:.3g}" if low is None else f"{value:.3g} [{low:.3g}, {high:.3g}]"
