"""Lineage as static pages: the graph of versions, a page for each version with some of its rows, a
page for each of some prompts with all that became of it. No server, no script; links stay inside
the folder.

write_lineage(lake, "3f9c01", Path("pages"), prompts=24)  ->  version -> name of its page; `index` -> that of the graph
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dapflow.flows.report.drawing.graph import Box, graph
from dapflow.flows.report.drawing.page import environment, write
from dapflow.flows.report.find import find_policy, metrics_of, own_versions
from dapflow.storage import Lake, UserError
from dapflow.storage.catalogue import Catalogue
from dapflow.storage.learned import levels
from dapflow.storage.lineage import version_of
from dapflow.storage.replacing import replacing

Row = dict[str, Any]
_PER_PROMPT = 40  # rows of a dataset at most for each prompt shown
_LONG = 280  # characters of a text in a table
# The columns of each noun on its page; a name that ends in `id` is a row's, or a version's, and a
# link where that has a page.
_COLUMNS = {
    "prompts": ("id", "prompt", "split", "source", "parents"),
    "completions": ("id", "prompt_id", "sample", "text", "finish_reason", "seed", "policy", "note"),
    "verdicts": (
        "id",
        "prompt_id",
        "completion_id",
        "other_id",
        "outcome",
        "score",
        "judge",
        "note",
    ),
    "acceptances": ("id", "prompt_id", "completion_id", "reward", "accepted", "note"),
    "pairs": (
        "id",
        "prompt_id",
        "chosen_id",
        "rejected_id",
        "prompt",
        "chosen",
        "rejected",
        "margin",
        "source",
        "dropped",
    ),
    "models": ("id", "name", "role", "parent", "reference", "path", "digest"),
    "metrics": ("name", "value", "low", "high", "unit"),
}


def write_lineage(
    lake: Lake,
    version: str,
    folder: Path,
    prompts: int,
    report: str | None = None,
    whole: bool = False,
) -> dict[str, str]:
    """The pages of what a version came from, into `folder`, which is made anew.

    prompts: how many of each dataset of prompts are followed, with all their rows; report: address
    of a report to link to; whole: back to the first version, and not only to the policies that this
    iteration began with. Raises UserError.
    """
    catalogue = lake.catalogue()
    shown = _versions(lake, catalogue, version, whole)
    rows = {one: _rows(lake, catalogue, one, shown, prompts) for one in shown}
    names = {one: f"{one}.html" for one in shown}
    asked = {
        row["id"]: f"{row['id']}.html"
        for one in shown
        if catalogue.versions[one].kind == "prompts"
        for row in rows[one]
    }
    site = _Site(lake, catalogue, version, shown, rows, names, asked, report)
    pages = {"index.html": site.index(), **{names[one]: site.version(one) for one in shown}}
    pages |= {name: site.prompt(one) for one, name in asked.items()}
    _replace(folder, pages)
    return names | {"index": "index.html"}


def _versions(lake: Lake, catalogue: Catalogue, version: str, whole: bool) -> list[str]:
    ends = [version, *metrics_of(catalogue, version)]
    if not whole:
        own = own_versions(catalogue, find_policy(lake, version))
        border = [parent for one in own for parent in catalogue.parents.get(one, {}).values()]
        return [one for one in dict.fromkeys([*own, *border]) if one in catalogue.versions]
    found = dict.fromkeys(one for end in ends for one in (end, *catalogue.ancestors(end)))
    return [one for one in found if one in catalogue.versions]


def _rows(
    lake: Lake, catalogue: Catalogue, version: str, shown: Sequence[str], prompts: int
) -> list[Row]:
    """The rows of a version that its page shows: of the first prompts of each dataset that it goes
    back to.
    """
    info = catalogue.versions[version]
    if info.state != "complete":
        return []
    held = lake.schema(info.kind).names
    columns = ", ".join(f'"{name}"' for name in held if name not in ("token_ids", "logprobs"))
    where, values, most = "version = ?", [version], prompts
    if info.kind == "metrics":
        where, most = where + " AND step IS NULL", 10_000
    elif "prompt_id" in held:
        asked = [
            one
            for one in catalogue.sources(version)
            if one in shown and catalogue.versions[one].kind == "prompts"
        ]
        if asked:
            first = " UNION ALL ".join(
                "(SELECT id FROM prompts WHERE version = ? ORDER BY id LIMIT ?)" for _ in asked
            )
            where, most = where + f" AND prompt_id IN ({first})", prompts * _PER_PROMPT
            values += [value for one in asked for value in (one, prompts)]
    return lake.rows(
        f'SELECT {columns} FROM "{info.kind}" WHERE {where} ORDER BY id LIMIT {most}', values
    )


class _Site:
    """What the pages know of one another."""

    def __init__(
        self,
        lake: Lake,
        catalogue: Catalogue,
        start: str,
        shown: Sequence[str],
        rows: Mapping[str, list[Row]],
        names: Mapping[str, str],
        asked: Mapping[str, str],
        report: str | None,
    ) -> None:
        self.lake, self.catalogue, self.start, self.shown = lake, catalogue, start, shown
        self.rows, self.names, self.asked, self.report = rows, names, asked, report
        self.row_ids = {row["id"] for held in rows.values() for row in held}
        facts = lake.rows(
            "SELECT * EXCLUDE (rows) FROM versions WHERE version IN (SELECT unnest(?))",
            [list(shown)],
        )
        self.facts = {row["version"]: row for row in facts}
        self.of_prompt: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
        for one in shown:
            for row in rows[one]:
                if row.get("prompt_id"):
                    self.of_prompt[row["prompt_id"]][catalogue.versions[one].kind].append(row)

    def index(self) -> str:
        versions = [self.catalogue.versions[one] for one in self.shown]
        boxes = {
            one.version: Box(
                title=f"{one.step.replace('_', ' ')}",
                note=f"{one.kind} {one.version[:8]} · {one.rows:,}",
                kind=one.kind,
                href=self.names[one.version],
            )
            for one in versions
        }
        parents = {
            one: [
                other
                for other in dict.fromkeys(self.catalogue.parents.get(one, {}).values())
                if other in boxes
            ]
            for one in boxes
        }
        made = sorted(versions, key=lambda one: one.opened_at)
        return self._render(
            "lineage.html",
            picture=graph(boxes, parents, self.start),
            versions=made,
            start=self.catalogue.versions[self.start],
        )

    def version(self, version: str) -> str:
        info, catalogue = self.catalogue.versions[version], self.catalogue
        children = [one for one in catalogue.children.get(version, ()) if one in catalogue.versions]
        learned = (
            levels(self.lake, version) if info.kind == "models" and info.state == "complete" else []
        )
        columns = [
            name
            for name in _COLUMNS[info.kind]
            if any(row[name] not in (None, []) for row in self.rows[version])
        ]
        return self._render(
            "version.html",
            info=info,
            facts=self.facts[version],
            parameters=json.dumps(
                json.loads(self.facts[version]["parameters"] or "{}"), indent=2, ensure_ascii=False
            ),
            parents=[
                (role, one, catalogue.versions.get(one))
                for role, one in catalogue.parents.get(version, {}).items()
            ],
            children=[catalogue.versions[one] for one in children],
            learned=learned,
            columns=columns,
            rows=self.rows[version],
        )

    def prompt(self, row_id: str) -> str:
        row = next(row for row in self.rows[version_of(row_id)] if row["id"] == row_id)
        about = self.of_prompt.get(row_id, {})
        said: dict[str, list[Row]] = defaultdict(list)
        for kind in ("acceptances", "verdicts"):
            for one in about.get(kind, ()):
                for key in ("completion_id", "other_id"):
                    if one.get(key):
                        said[one[key]].append(one)
        return self._render(
            "prompt.html",
            row=row,
            said=said,
            completions=about.get("completions", []),
            pairs=about.get("pairs", []),
        )

    def address(self, value: str) -> str | None:
        """The page of a row or a version, where there is one."""
        if value in self.asked:
            return self.asked[value]
        if version_of(value) in self.names and ("-" not in value or value in self.row_ids):
            return self.names[version_of(value)] + (f"#{value}" if "-" in value else "")
        return None

    def cells(self, row: Row, columns: Iterable[str]) -> list[list[tuple[str, str | None]]]:
        """What a row shows in each column: texts, each with an address or none."""
        return [
            [
                _cell(one, self.address)
                for one in (row[name] if isinstance(row[name], list) else [row[name]])
            ]
            for name in columns
        ]

    def _render(self, template: str, **values: Any) -> str:
        known = {
            "address": self.address,
            "cells": self.cells,
            "names": self.names,
            "report": self.report,
            "start_version": self.start,
        }
        return environment().get_template(template).render(**known, **values)


def _cell(value: Any, address: Any) -> tuple[str, str | None]:
    if isinstance(value, str) and (found := address(value)):
        head, dash, ordinal = value.partition("-")
        return head[:8] + (f"-{int(ordinal)}" if dash else ""), found
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    return (text if len(text) <= _LONG else text[: _LONG - 1] + "…"), None


def _replace(folder: Path, pages: Mapping[str, str]) -> None:
    """All pages, or none of them: what an earlier run has left there goes. A folder with other
    things in it is not touched.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "index.html").exists():
        raise UserError(
            f"{folder} holds something else: name a folder that is empty, or not there."
        )
    with replacing(folder) as partial:
        for name, text in pages.items():
            write(partial / name, text)
