"""A lake with four measured runs, and a run from beginning to end, each made once: that takes
longer than reading it.
"""

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from dapflow.flows.cli import main as cli
from dapflow.storage import Lake
from tests.helpers.evaluated import HOSTILE, run
from tests.helpers.lakes import empty_lake
from tests.helpers.toy import SMALL, words


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """Runs `better` (75 of 100 prompts won, longer answers, metrics of its own), `level` (22 of
    40), `high` (36 of the same 40) and `worse` (2 of 20, with hostile texts); only to be read."""
    with Lake(tmp_path_factory.mktemp("measured") / "lake") as lake:
        more = {
            "kl_to_initial_after": 4.0,
            "reward_after": 1.0,
            "novelty_before": 0.25,
            "novelty_after": 0.5,
            "surprise": 12.5,
        }
        run(lake, "better", number=1, prompts=100, wins=0.75, longer=5, more=more)
        run(
            lake,
            "level",
            number=2,
            prompts=40,
            wins=0.55,
            more={"kl_to_initial_after": 9.0, "reward_after": 2.0},
        )
        run(
            lake,
            "high",
            number=3,
            prompts=40,
            wins=0.9,
            settings={"loss": {"name": "hinge_norm", "beta": 0.1}, "seed": 3},
        )
        run(
            lake,
            "worse",
            number=4,
            prompts=20,
            wins=0.1,
            text=HOSTILE,
            settings={"seed": 0, "evil": HOSTILE},
        )
        yield lake


@pytest.fixture(scope="session")
def finished(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: None
) -> tuple[Path, dict[str, Any]]:
    """A lake with a run of rso on the toy model with the settings SMALL, all figures measured, and
    what the command printed. It may be repeated there; whoever does something else, copies it.
    """
    lake, out, err = tmp_path_factory.mktemp("finished") / "lake", io.StringIO(), io.StringIO()
    empty_lake(lake)
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as end:
        cli.main(("run", "rso", "--toy", "--json", "--lake", str(lake), *words(*SMALL)))
    assert not end.value.code, err.getvalue()
    return lake, json.loads(out.getvalue().splitlines()[-1])
