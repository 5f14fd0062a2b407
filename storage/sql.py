"""SQL that a user has written: whether it only reads the lake's tables. Its syntax tree is looked
at before the engine plans anything.

    check_query(cursor, lake.name, "select count(*) from pairs")     raises UserError, or returns the SELECT without its semicolon
What may stand in it is listed, so that a function or a kind of table that a later DuckDB brings is
refused until somebody lists it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import duckdb

from dapflow.storage.database import Connection
from dapflow.storage.errors import Remedy, UserError, one_line

TABLE_FUNCTIONS = frozenset(
    {"generate_series", "json_each", "json_tree", "range", "repeat", "repeat_row", "unnest"}
)
_CHANCE = frozenset(
    {"error", "gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7"}
)  # DuckDB counts them among side effects
_OF_THE_PROCESS = frozenset(
    {"current_setting", "getvariable", "json_serialize_plan"}
)  # settings, and plans of SQL in a string
_SOURCES = frozenset(
    {
        "BASE_TABLE",
        "EMPTY",
        "EXPRESSION_LIST",
        "JOIN",
        "PIVOT",
        "SHOW_REF",
        "SUBQUERY",
        "TABLE_FUNCTION",
    }
)
_FUNCTIONS = """SELECT function_name FROM duckdb_functions() WHERE function_type IN ('aggregate', 'macro', 'scalar')
    GROUP BY ALL HAVING bool_and(database_name = 'system' AND schema_name = 'main')
        AND (NOT bool_or(coalesce(has_side_effects, false)) OR list_contains(?, function_name))"""
_TABLES = "SELECT table_name FROM duckdb_tables() WHERE database_name = ? AND schema_name = 'main'"
_ONE_SELECT = "A query is one SELECT: the lake is changed by runs only."
_DEEP = "The query is nested too deeply: write it flatter, with WITH."

Tree = dict[str, Any]


@dataclass(frozen=True)
class _Allowed:
    tables: frozenset[str]
    functions: frozenset[str]


def check_query(cursor: Connection, lake: str, query: str) -> str:
    """The text of the one SELECT in `query`. Raises UserError when it is anything else, or does
    more than read the tables of `lake`.
    """
    statements = _statements(cursor, query)
    if len(statements) != 1:
        raise UserError(_ONE_SELECT)
    _check_tree(cursor, lake, statements[0])
    return _without_semicolon(query)


def check_condition(cursor: Connection, lake: str, condition: str) -> None:
    """Raises UserError unless `condition` is one expression, which reads no more than a query may."""
    statements, (nothing_else,) = (
        _statements(cursor, f"SELECT {condition}\n"),
        _statements(cursor, "SELECT true"),
    )
    bare = [{**one["node"], "select_list": []} for one in statements]
    if (
        bare != [{**nothing_else["node"], "select_list": []}]
        or len(statements[0]["node"]["select_list"]) != 1
    ):
        raise UserError(
            'A condition is one, over the columns, such as "margin > 2 and dropped is null".',
            Remedy.CONDITION,
        )
    _check_tree(cursor, lake, statements[0])


def _without_semicolon(query: str) -> str:
    """What stands before the semicolon that ends a statement, so that it can stand in another."""
    encoded = query.encode()
    tokens = [offset for offset, _ in duckdb.tokenize(query)]  # in bytes; comments are none
    begin = next(offset for offset in tokens if encoded[offset : offset + 1] != b";")
    ends = (offset for offset in tokens if offset > begin and encoded[offset : offset + 1] == b";")
    return encoded[begin : next(ends, None)].decode()


def _statements(cursor: Connection, query: str) -> list[Tree]:
    if any(
        "\ud800" <= letter <= "\udfff" for letter in query
    ):  # of bytes that are no text, as Python hands them on
        raise UserError("The query is not valid UTF-8: write it anew.")
    row = cursor.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()
    assert row is not None
    try:
        parsed = json.loads(row[0])
    except RecursionError as error:
        raise UserError(_DEEP) from error
    if not parsed["error"]:
        return parsed["statements"]
    if parsed["error_type"] == "not implemented":  # a statement, but no SELECT
        raise UserError(_ONE_SELECT)
    raise UserError(f"The database says: {one_line(parsed['error_message'])}")


def _check_tree(cursor: Connection, lake: str, tree: Tree) -> None:
    functions = frozenset(
        name for (name,) in cursor.execute(_FUNCTIONS, [sorted(_CHANCE)]).fetchall()
    )
    tables = frozenset(name for (name,) in cursor.execute(_TABLES, [lake]).fetchall())
    try:
        _check(tree, _Allowed(tables, functions - _OF_THE_PROCESS))
    except RecursionError as error:
        raise UserError(_DEEP) from error


def _check(node: Any, allowed: _Allowed) -> None:
    if isinstance(node, list):
        for child in node:
            _check(child, allowed)
    elif isinstance(node, dict):
        kind = node.get("type")
        if "sample" in node and "select_list" not in node and not str(kind).endswith("_NODE"):
            _check_source(node, kind, allowed)
        elif "function_name" in node:
            _check_function(node, allowed.functions | {"unnest"})
        if kind == "TABLE_FUNCTION":
            _check(node["function"]["children"], allowed)
        else:
            for child in _children(node, allowed):
                _check(*child)


def _children(node: Tree, allowed: _Allowed) -> Iterator[tuple[Any, _Allowed]]:
    """What is below a node, each with what may stand in it: a WITH's table from where it is written
    on, and in itself if recursive.
    """
    for table in node.get("cte_map", {}).get("map", []):
        known = replace(allowed, tables=allowed.tables | {table["key"].lower()})
        recursive = table["value"]["query"]["node"]["type"] == "RECURSIVE_CTE_NODE"
        yield table["value"], known if recursive else allowed
        allowed = known
    yield from ((child, allowed) for name, child in node.items() if name != "cte_map")


def _check_source(node: Tree, kind: str | None, allowed: _Allowed) -> None:
    if kind == "TABLE_FUNCTION":
        _check_function(node["function"], TABLE_FUNCTIONS)
    elif kind == "BASE_TABLE":
        name, schema = node["table_name"], node["schema_name"]
        if name.lower() not in allowed.tables or node["catalog_name"] or schema not in ("", "main"):
            where = ".".join(part for part in (node["catalog_name"], schema, name) if part)
            raise UserError(
                f'The lake has no table "{where}": look at which there are to read.',
                Remedy.LIST_TABLES,
            )
    elif kind not in _SOURCES or (
        kind == "SHOW_REF" and node["table_name"].strip('"') not in ("", "tables")
    ):
        raise UserError(
            "A query reads the lake's tables only: `show tables` and `describe TABLE` say what "
            "there is."
        )


def _check_function(node: Tree, functions: frozenset[str]) -> None:
    name = node["function_name"]
    if (
        name.lower() not in functions
        or node.get("schema") not in ("", "main", None)
        or node.get("catalog") not in ("", "system", None)
    ):
        raise UserError(f"A query only reads the lake's tables, so it has no function {name}.")
