"""What is written is there whole or not at all, and leaves nothing beside it."""

from pathlib import Path

import pytest

from dapflow.storage.replacing import replacing


def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for text in ("first", "second"):
        with replacing(path, durable=True) as partial:
            partial.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_takes_the_place_of_another_with_all_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    for name in ("old.html", "new.html"):
        with replacing(folder) as partial:
            partial.mkdir()
            (partial / name).touch()
    assert [path.name for path in folder.iterdir()] == ["new.html"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("whole")
    with pytest.raises(OSError, match="full"), replacing(path) as partial:
        partial.write_text("ha")
        raise OSError("the disk is full")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
