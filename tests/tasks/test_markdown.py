"""Foreign text in every place of an artifact is shown as text. In Prefect's own UI:
tests/deployments/test_canary.py.
"""

import re
from html import unescape

import pytest
from markdown_it import MarkdownIt

from dapflow.tasks.markdown import Markdown, as_quotation, as_table, as_text, cut, visible

TEXTS = {
    "a picture": "![p](http://evil.example/p.png)",
    "a picture by reference": "![p][1]\n\n[1]: http://evil.example/p.png",
    "a link": "[l](http://evil.example) [l](javascript:alert(1)) [l][1]",
    "an address": "http://evil.example/a?b=c https://evil.example www.evil.example somebody@evil.example",
    "an address in brackets": "<http://evil.example> <a@evil.example>",
    "HTML": '<img src="http://evil.example/q.png"><script>alert(1)</script><!-- x --><a href="javascript:alert(1)">x</a>',
    "entities": "&lt;img src=x&gt; &#33;[p](x) &amp;amp;",
    "a code span": "`a` ``b ` c`` ` ![p](http://evil.example/p.png)",
    "fences": "```\n![p](x)\n````\n~~~~~\n![p](http://evil.example/p.png)\n```html\n<img src=x>",
    "a table": "| a | b |\n| --- | --- |\n| c \\| d \\\\| e | f |",
    "headings": "# one\ntwo\n===\nthree\n---\n## four",
    "lists": "1. one\n2) two\n- three\n+ four\n* five\n- [x] six",
    "emphasis": "*a* **b** __c__ ~~d~~ _e_ \\*f\\*",
    "indented code": "x\n\n    ![p](http://evil.example/p.png)\n\tcode",
    "a quotation": "> a\n>> b\n\n> ![p](http://evil.example/p.png)",
    "a definition": "[1]: http://evil.example/p.png 'title'\n[^1]: note",
    "a break": "a  \nb\\\nc",
    "mathematics": "$x$ $$y$$ \\(z\\) \\[w\\]",
    "a very long text": "![p](http://evil.example/p.png) " * 100_000,
    "nothing": "",
}
PLACES = {
    "a line": as_text,
    "a heading": lambda text: f"# {as_text(text)}",
    "between stars": lambda text: f"**chosen ({as_text(text)})**",
    "a quotation": as_quotation,
    "a cell": lambda text: as_table(("left", "right"), [[text, "x"], ["x", text]]),
    "a header": lambda text: as_table((text, text), [["x", "x"]]),
}
OURS = {"p", "h1", "strong", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "br"}


def rendered(markdown: str) -> str:
    return (
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    )


def words(html: str) -> str:
    """The text of a page without spaces: how lines are broken is Markdown's affair."""
    return re.sub(r"\s", "", unescape(re.sub(r"<[^>]*>", "", html)))


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_nothing_in_a_text_means_anything_to_markdown(place, text: str) -> None:  # type: ignore[no-untyped-def]
    html = rendered(place(text))
    assert set(re.findall(r"<(\w+)", html)) <= OURS
    assert "href" not in re.sub(r">[^<]*<", "><", html) and "src=" not in re.sub(
        r">[^<]*<", "><", html
    )
    shown = re.sub(r"\s", "", text)[:200]
    assert shown in words(html)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_address_is_left_that_a_renderer_makes_a_link_of(text: str) -> None:
    for markdown in (as_text(text), as_quotation(text), as_table((text,), [[text]])):
        assert not re.search(r"(?i)://|www\.|\w@\w", markdown)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_table_has_as_many_rows_and_cells_whatever_they_say(text: str) -> None:
    html = rendered(as_table(("left", "right"), [[text, text], [1.23456, None]]))
    assert (html.count("<tr>"), html.count("<td>"), html.count("<th>")) == (3, 4, 2)


def test_markdown_of_our_own_stays_markdown_in_a_table() -> None:
    html = rendered(
        as_table(("", ""), [["lineage", Markdown("[from](/lineage/0a)")], ["number", 0.123456]])
    )
    assert '<a href="/lineage/0a">from</a>' in html and "<td>0.1235</td>" in html


def test_a_character_that_is_not_seen_is_given_a_sign() -> None:
    assert (
        visible("a\x1b[31m\u202eb\u200b\u2066\ufeff\x9b\U000e0041")
        == "a␛[31m<U+202E>b<U+200B><U+2066><U+FEFF><U+009B><U+E0041>"
    )
    assert visible("می\u200cخواهم 👩\u200d🔬 é ñ 漢字") == "می\u200cخواهم 👩\u200d🔬 é ñ 漢字"
    assert words(rendered(as_text("a\u202eb"))) == "a<U+202E>b"


def test_a_quotation_keeps_its_lines_and_their_indentation() -> None:
    html = rendered(as_quotation("def f():\r\n    return 1\n\nend"))
    assert (
        "def f():\n\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}return 1"
        in html
    )
    assert html.count("<blockquote>") == 1 and html.count("<p>") == 2


def test_a_text_that_is_too_long_ends_with_dots() -> None:
    assert (cut("abcdef", 5), cut("abcde", 5)) == ("ab...", "abcde")
    assert len(words(rendered(as_text("a" * 10_000_000)))) == 500
