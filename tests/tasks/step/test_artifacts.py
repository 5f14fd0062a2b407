"""What an artifact shows of rows: as a person reads them, and as text, whatever a model has
written. Run: pytest tests/tasks/step/test_artifacts.py
"""

from markdown_it import MarkdownIt

from dapflow.tasks.markdown import as_table
from dapflow.tasks.step.artifacts import pair_as_markdown

HOSTILE = '![p](http://127.0.0.1/p.png) <img src="http://127.0.0.1/q.png"> [l](http://127.0.0.1)\n\n# no heading\n| a | b |\n1. one\n- two *bold* &lt;\n===\nx'


def test_a_pair_is_read_from_top_to_bottom_and_its_text_is_only_text() -> None:
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render(pair_as_markdown(HOSTILE, HOSTILE, "short", 0.5, 0.9, "best_worst", None))
    )
    assert not any(
        f"<{tag}" in html for tag in ("img", "a ", "h1", "h2", "table", "ol", "ul", "em")
    )
    assert html.count("<blockquote>") == 3
    assert "two *bold* &amp;lt;" in html
    assert "chosen (best_worst, margin 0.5, better with probability 0.90)" in html


def test_a_pair_that_was_left_out_says_why() -> None:
    assert "chosen (random, left out: tie)" in pair_as_markdown(
        "p", "a", "a", 0.0, None, "random", "tie"
    )


def test_a_pair_of_which_nothing_else_is_known_is_shown_all_the_same() -> None:
    assert "**chosen**" in pair_as_markdown("p", "a", None, None, None, None, None)


def test_a_cell_stays_in_its_row() -> None:
    html = MarkdownIt("commonmark").enable("table").render(as_table(("text",), [[HOSTILE]]))
    assert html.count("<td>") == 1
    assert "<img" not in html
