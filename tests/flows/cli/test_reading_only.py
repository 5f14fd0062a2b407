"""A user's own SQL reads the lake's tables and nothing else, within bounds; what is printed shows
its control characters.
"""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dapflow.flows.cli.lake import answers
from dapflow.flows.display.screen import Screen, visible
from dapflow.storage import Lake
from dapflow.storage.asking import Question, question, rows_where
from dapflow.storage.errors import UserError, one_line
from dapflow.storage.sql import TABLE_FUNCTIONS
from tests.helpers.lakes import initial_policy, iteration

_READS = (
    "from pairs",
    "with a as (select 1 as x), b as (from a) select * from b, a;  -- a comment",
    "with recursive r as (select 1 as x union all select x + 1 from r where x < 3) from r",
    "select * from pairs, unnest([1, 2]) t(x), range(2), lateral (select 1)",
    "select outcome, count(*) filter (where score > 1), median(score), list(id order by id) from verdicts group by all order by 2",
    "select row_number() over (partition by prompt_id), prompt ilike '%1%', [x + 1 for x in [1]], random() < 2 from pairs",
    "select * from pairs where id in (select id from pairs) and exists (from edges)",
    "select coalesce(margin, 0)::int, regexp_extract(prompt, '\\d'), '{\"a\": 1}'->>'a', now() - interval 1 day from main.pairs",
    "describe pairs",
    "summarize pairs",
    "show tables",
    "values (1, 'a')",
    "from pairs union all by name from pairs",
    "select * from pairs pivot (count(*) for source in ('first-round'))",
)
_DOES_MORE = (
    "from '{file}'",
    "summarize '{file}'",
    "describe from read_csv('{file}')",
    "from query('select 1')",
    "from duckdb_logs",
    "from information_schema.tables",
    "from __ducklake_metadata_lake_0.ducklake_data_file",
    "show databases",
    "select (select content from read_text('{file}'))",
    "with pairs as (from READ_TEXT('{file}')) from pairs",
    "with read_text as (select 1) from read_text('{file}')",
    "with x as (from duckdb_logs), duckdb_logs as (select 1) from x",
    'select (from (with "{file}" as (select 1) from "{file}")) from \'{file}\'',
    "from pairs order by (select content from read_text('{file}'))",
    "from pairs limit (select count(*) from read_text('{file}'))",
    "select list_transform([1], lambda x: (select content from read_text('{file}')))",
    "select json_serialize_plan('from read_csv(''{file}'')')",
    "select current_setting('memory_limit')",
    "select system.main.write_log('x')",
    "select pg_sleep(1)",
    "copy pairs to '{file}.copy'",
    "explain analyze select 1",
    "pragma show_tables",
    "checkpoint",
    "",
    "-- nothing",
    "select 1; select 2",
)


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with one night, closed."""
    root = tmp_path_factory.mktemp("night") / "lake"
    with Lake(root) as lake:
        iteration(lake, 1, initial_policy(lake))
    return root


@pytest.fixture
def reader(night: Path) -> Iterator[Lake]:
    with Lake(night, read_only=True) as lake:
        yield lake


def _digest(root: Path) -> str:
    """Of all files below a folder but SQLite's own (-wal, -shm), which every reader makes and
    removes.
    """
    files = sorted(
        path
        for path in root.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    )
    return hashlib.sha256(
        b"".join(str(path).encode() + path.read_bytes() for path in files)
    ).hexdigest()


def _ask(lake: Lake, query: str, timeout_s: float = 60) -> list[dict[str, Any]]:
    with question(lake, query, timeout_s) as asked:
        return [row for batch in asked.rows("*") for row in batch.to_pylist()]


@pytest.mark.parametrize("query", _READS)
def test_what_only_reads_is_answered(reader: Lake, query: str) -> None:
    assert _ask(reader, query)


@pytest.mark.parametrize("query", _DOES_MORE)
def test_what_does_more_is_refused_before_the_engine_plans_it(
    reader: Lake, tmp_path: Path, query: str
) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("canary\n1\n")
    with pytest.raises(UserError, match=r"one SELECT|no function|no table|tables only"):
        _ask(reader, query.replace("{file}", str(file)))
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


def test_no_table_function_of_this_duckdb_but_the_listed_is_called_and_none_changes_a_file(
    reader: Lake, night: Path
) -> None:
    before = _digest(night)
    kinds = "('pragma', 'table', 'table_macro')"
    found = reader.rows(
        f"SELECT DISTINCT function_name AS name FROM duckdb_functions() WHERE function_type IN {kinds} ORDER BY name"
    )
    names = {row["name"] for row in found}
    assert len(names) > 100 and names > TABLE_FUNCTIONS
    for name in sorted(names - TABLE_FUNCTIONS):
        with pytest.raises(UserError, match="no function"):
            _ask(reader, f"from \"{name}\"('lake_0')")
    assert _digest(night) == before


def test_the_engine_itself_opens_no_other_file_and_keeps_its_settings(
    reader: Lake, tmp_path: Path
) -> None:
    with question(reader, "select 1", 60) as asked:
        for text in (
            f"COPY (SELECT 1) TO '{tmp_path}/x'",
            "FROM read_text('/etc/passwd')",
            "SET threads = 1",
            f"ATTACH '{tmp_path}/m'",
        ):
            with pytest.raises(UserError, match="database says"):
                asked.ask.timed(lambda text=text: asked.ask.cursor.execute(text).fetchall())
    assert not list(tmp_path.iterdir())


def test_a_condition_is_one_expression(reader: Lake) -> None:
    query = "SELECT id FROM pairs WHERE {condition} ORDER BY id"
    assert len(rows_where(reader, query, "dropped is null -- no ties", 60)) == 3
    assert len(rows_where(reader, query, "id in (select id from pairs)", 60)) == 4
    for wrong in (
        "true) union select version from versions where (true",
        "true union select version from versions",
        "true; select 1",
        "true limit 1",
        "true, false",
        "true from pairs",
        "distinct true",
        "id in (select content from read_text('/etc/passwd'))",
        "",
    ):
        with pytest.raises(UserError):
            rows_where(reader, query, wrong, 60)


@pytest.mark.parametrize(
    "query",
    [
        "select count(*) from range(1000000000000)",
        "select levenshtein(repeat('ab', 100000), repeat('ba', 100000))",
    ],
)
def test_a_query_that_takes_too_long_ends_with_a_sentence(night: Path, query: str) -> None:
    command = [
        sys.executable,
        "-m",
        "dapflow.flows.cli.main",
        "sql",
        query,
        "--timeout",
        "0.5",
        "--lake",
        str(night),
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr
        == "dapflow: The query took longer than 0.5 seconds: ask for less, or give it longer (--timeout).\n"
    )


def test_a_function_that_takes_all_memory_ends_with_a_sentence(night: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "dapflow.flows.cli.main",
        "sql",
        "select repeat('x', 3000000000)",
        "--lake",
        str(night),
    ]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.startswith("dapflow: The query needs more than 2 GB of memory")


def wide(file: io.StringIO) -> Screen:
    """A screen on which nothing is broken."""
    screen = Screen(file=file)
    screen.width = 400
    return screen


def test_every_type_of_the_engine_is_printed_in_every_form(
    reader: Lake, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with question(reader, "select 1", 60) as asked:
        types = asked.ask.cursor.execute("DESCRIBE FROM test_all_types()").fetchall()
        odd = Question(
            [row[0] for row in types],
            [row[1] for row in types],
            "FROM test_all_types()",
            asked.ask,
        )
        answers.print_table(wide(io.StringIO()), odd, 10)
        for form in ("csv", "json", "parquet"):
            answers.print_raw(odd, form)
            printed = capfdbinary.readouterr().out
            if form == "json":
                rows = json.loads(
                    printed, parse_constant=lambda name: pytest.fail(f"{name} is no JSON")
                )
                assert [len(row) for row in rows] == [len(types)] * 3
            if form == "parquet":
                assert pq.read_table(io.BytesIO(printed)).shape == (3, len(types))


def test_two_columns_of_a_name_nan_nulls_and_empty_texts_stay_apart(
    reader: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    with question(
        reader, "select 1 as a, 2 as a, 'nan'::double as n, '' as e, null as z;", 60
    ) as asked:
        answers.print_raw(asked, "csv")
        assert capsys.readouterr().out == 'a,a_1,n,e,z\n1,2,nan,"",\n'
        answers.print_raw(asked, "json")
        assert json.loads(capsys.readouterr().out) == [
            {"a": 1, "a_1": 2, "n": None, "e": "", "z": None}
        ]


def test_a_long_value_is_cut_in_the_engine_and_a_control_character_is_shown(reader: Lake) -> None:
    query = "select repeat('x', 20000000) as long, chr(27) || '[31m' || chr(8238) as odd, '[bold]m[/no]' as \"[red]n[/no]\""
    written = io.StringIO()
    with question(reader, query, 60) as asked:
        assert (
            max(
                len(value)
                for batch in asked.rows(asked.as_text(301))
                for value in batch.to_pylist()[0].values()
            )
            == 301
        )
        answers.print_table(wide(written), asked, 10)
    text = written.getvalue()
    assert "\u241b[31m<U+202E>" in text and "[bold]m[/no]" in text and "[red]n[/no]" in text
    assert "\x1b" not in text and "\u202e" not in text and len(text) < 3000


@pytest.mark.parametrize(
    "odd",
    [
        "\x1b",
        "\x07",
        "\x7f",
        "\x85",
        "\x9b",
        "\u200b",
        "\u200e",
        "\u202e",
        "\u2028",
        "\u2066",
        "\ufeff",
        "\ud800",
    ],
)
def test_no_hidden_character_reaches_the_terminal(odd: str) -> None:
    written = io.StringIO()
    Screen(file=written).print(f"a{odd}b", markup=False)
    assert odd not in visible(f"a{odd}b") and odd not in written.getvalue()


def test_letters_of_any_script_stay_as_they_are() -> None:
    for text in ("Zürich\n\tÑandú", "日本語　全角", "مرحبا", "🙂", "a\u00a0b"):
        assert visible(text) == text


def test_a_message_of_the_database_is_one_short_line_without_passwords() -> None:
    text = "IO Error: connect to postgres://me:hunter2@db/lake?password=hunter3 host=db password='hunter4 x' failed\nLINE 1"
    assert (
        one_line(text)
        == "IO Error: connect to postgres://***@db/lake?password=*** host=db password=*** failed"
    )
    assert len(one_line("x" * 10_000_000)) < 500
