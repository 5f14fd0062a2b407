"""How lineage looks in a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from dapflow.flows.display.cells import cell, table_of
from dapflow.storage.lineage import Node

_TOLD = {  # what a line of the tree says about a row
    "prompts": ("prompt", "source"),
    "completions": ("text", "sample", "seed", "finish_reason"),
    "verdicts": ("outcome", "score", "judge", "note"),
    "acceptances": ("accepted", "reward", "sweep", "note"),
    "pairs": ("margin", "source", "rating", "dropped"),
    "models": ("name", "role"),
}
_LONG = 72  # characters of a cell in a tree


def print_tree(console: Console, node: Node, levels: Sequence[Mapping[str, Any]]) -> None:
    """Where it came from, what came of it, and of a model what it learned from."""
    console.print(_line(node))
    for name, value in node.facts.items():
        if value not in (None, [], "") and name not in ("version", "id"):
            console.print(
                Text.assemble((f"  {name:<14}", "dim"), cell(value, 300)), highlight=False
            )
    for title, side in (("from", "up"), ("made into", "down")):
        if nodes := getattr(node, side):
            tree = Tree(Text(title, "bold"))
            for one in nodes:
                _grow(tree, one, side)
            console.print(tree)
    if levels:
        table = table_of("learned from", ">rows", "by")
        for row in levels:
            table.add_row(Text(row["level"]), f"{row['rows']:,}", Text(row["by"] or ""))
        console.print(table)
        console.print(f"every row: dapflow lineage {node.id} --rows", highlight=False)


def learned_line(row: Mapping[str, Any]) -> str:
    """One pair of a model, in one line."""
    verdicts = [*(row["chosen_verdicts"] or []), *(row["rejected_verdicts"] or [])]
    facts = {
        "prompt": row["prompt"],
        "chosen": row["chosen"],
        "rejected": row["rejected"],
        "policy": row["policy"],
    }
    facts |= {
        "seeds": f"{row['chosen_seed']},{row['rejected_seed']}" if row["chosen"] else None,
        "verdicts": ",".join(verdicts),
    }
    return " ".join([row["pair"], *(f"{name}={value}" for name, value in facts.items() if value)])


def _grow(tree: Tree, node: Node, side: str) -> None:
    branch = tree.add(_line(node))
    for one in getattr(node, side):
        _grow(branch, one, side)


def _line(node: Node) -> Text:
    told = _TOLD.get(node.kind, ())
    row = "-" in node.id or "name" in node.facts
    facts = (
        [
            f"{name} {cell(node.facts[name], _LONG)}"
            for name in told
            if node.facts.get(name) is not None
        ]
        if row
        else []
    )
    if not row and node.kind == "metrics" and "step" not in node.facts:
        facts = [f"{name} {cell(value, _LONG)}" for name, value in node.facts.items()]
    elif not row and node.facts:
        facts = [
            f"{node.facts['step']}, {node.facts['rows']:,} rows"
            + ("" if node.facts["state"] == "complete" else f", {node.facts['state']}")
        ]
    line = Text.assemble(
        (f"{node.role}: " if node.role else "", "dim"), (f"{node.kind}@{node.id}", "bold")
    )
    return line + Text(
        "  (above)" if node.repeated else "  " + " · ".join(facts), "dim" if node.repeated else ""
    )
