"""What an error asks for can be done on the command line, and the sentence says how."""

import re
from pathlib import Path

import pytest

from dapflow.flows.cli.advice import ADVICE, advised
from dapflow.storage import Lake, LakeError, UserError
from dapflow.storage.errors import Remedy
from tests.helpers import ROOT


def test_every_remedy_has_its_command_or_option() -> None:
    assert set(ADVICE) == set(Remedy)


def test_an_error_says_how_and_one_without_remedy_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LakeError) as caught:
        Lake(tmp_path / "lake", read_only=True)
    assert advised(caught.value) == (
        f"There is no lake at {tmp_path / 'lake'}: run a recipe, which makes one, or name another"
        " (`dapflow run rso`, --lake)."
    )
    assert advised(UserError("Nothing can be done about it.")) == "Nothing can be done about it."


def test_storage_names_no_command_and_no_option() -> None:
    for file in sorted((ROOT / "storage").glob("*.py")):
        text = file.read_text("utf-8")
        assert not re.search(r"`dapflow |--(lake|timeout|replace|where)\b", text), file.name
