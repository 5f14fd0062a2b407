"""Lineage pages: every link leads somewhere, and from a policy one gets to the prompts it learned
from.
"""

from pathlib import Path

import pytest

from dapflow.flows.report.drawing.graph import layered, with_bends
from dapflow.flows.report.drawing.lineage import write_lineage
from dapflow.flows.report.find import find
from dapflow.storage import Lake, UserError
from tests.helpers.evaluated import HOSTILE
from tests.helpers.pages import Read
from tests.helpers.toy import dapflow


@pytest.fixture(scope="session")
def pages(measured: Lake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the run `worse`, whose texts are hostile."""
    folder = tmp_path_factory.mktemp("pages") / "lineage"
    write_lineage(measured, find(measured, "worse")[0].policy, folder, prompts=3)
    return folder


def test_every_link_leads_to_a_page_and_a_place_in_it(pages: Path) -> None:
    read = {path.name: Read(path.read_text()) for path in pages.iterdir()}
    assert len(read) > 20
    for name, one in read.items():
        assert one.tags.isdisjoint({"script", "link", "img"}), name
        for address in one.addresses:
            target, _, place = address.partition("#")
            assert target in read, f"{name} -> {address}"
            assert not place or place in read[target].ids, f"{name} -> {address}"


def test_from_the_policy_to_its_pairs_to_a_prompt(measured: Lake, pages: Path) -> None:
    found = find(measured, "worse")[0]
    pairs, prompt = f"{found.parts['pairs']}.html", f"{found.parts['prompts']}-00000001.html"
    assert pairs in Read((pages / f"{found.policy}.html").read_text()).addresses
    assert prompt in Read((pages / pairs).read_text()).addresses
    seen = " ".join(" ".join(Read((pages / prompt).read_text()).seen).split())
    assert "question 4.1 of a prompt" in seen
    assert (
        "answer 4 to the prompt" in seen and "answer 7 to the prompt" in seen
    )  # its four completions: chosen the first, rejected the last
    assert "trained on" in seen


def test_texts_are_shown_and_not_believed(measured: Lake, pages: Path) -> None:
    held_out = find(measured, "worse")[0].parts["held_out"]
    assert HOSTILE in "".join(Read((pages / f"{held_out}-00000000.html").read_text()).seen)


def test_a_dataset_shows_the_rows_of_the_prompts_followed_and_says_how_many_there_are(
    measured: Lake, pages: Path
) -> None:
    found = find(measured, "worse")[0]
    assert "3 of 20" in " ".join(Read((pages / f"{found.parts['after']}.html").read_text()).seen)


def test_a_folder_with_other_things_in_it_is_left_alone(
    measured: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    policy = find(measured, "level")[0].policy
    with pytest.raises(UserError, match="holds something else"):
        write_lineage(measured, policy, tmp_path, prompts=1)
    folder = tmp_path / "pages"
    for _ in range(2):  # its own pages are made anew
        code, out, err = dapflow(
            "lineage",
            policy[:9],
            "--html",
            str(folder),
            "--prompts",
            "1",
            "--lake",
            str(measured.root),
            capsys=capsys,
        )
        assert code == 0, err
        assert str(folder / "index.html") in out
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_version_stands_below_all_it_came_from() -> None:
    parents = {"b": ["a"], "c": ["b", "a"], "e": ["c", "d"]}
    layers = layered(["a", "b", "c", "d", "e"], parents)
    assert layers == [["a"], ["b"], ["c", "d"], ["e"]]
    passed, links = with_bends(layers, parents)
    assert passed == [["a"], ["b", "a 1"], ["c", "d"], ["e"]]
    assert links["c"] == ["b", "a 1"] and links["a 1"] == ["a"]
