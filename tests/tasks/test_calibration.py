"""How often a judge is right by how sure it is: planted honesty and planted vanity, counts, and the
picture of it.
"""

import base64
import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dapflow.flows.report.drawing import svg
from dapflow.storage import Lake
from dapflow.tasks.calibration import reliability_of, rows_about
from dapflow.tasks.pictures import calibration
from dapflow.tasks.statistics import Confidence, reliability
from tests.helpers.lakes import ids, named, write


def test_each_bin_holds_its_judgements_and_how_many_were_right() -> None:
    # 0.62 and its mirror image 0.38 are equally sure: one right, one wrong; 1.0 is in the last bin
    low, high = reliability([0.62, 0.38, 1.0, 0.98, 0.96])
    assert (low.n, low.confidence, low.right) == (2, pytest.approx(0.62), 0.5)
    assert (high.n, high.confidence, high.right) == (3, pytest.approx(0.98), 1.0)
    assert low.low < 0.5 < low.high and high.low == pytest.approx(
        3 / (3 + 1.96**2), abs=1e-3
    )  # Wilson: n / (n + z^2)
    assert reliability([]) == []


@pytest.mark.parametrize(("honest", "bias"), [(True, 0.0), (False, 0.15)])
def test_an_honest_judge_is_right_as_often_as_it_is_sure_and_a_vain_one_is_not(
    honest: bool, bias: float
) -> None:
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.7, 1.0, 6000)
    right = rng.random(6000) < sure - bias
    bins = reliability(np.where(right, sure, 1 - sure).tolist())
    assert sum(one.n for one in bins) == 6000
    assert all((one.low <= one.confidence <= one.high) == honest for one in bins if one.n > 500)
    assert sum(one.n > 500 for one in bins) >= 5


def test_what_a_reward_model_leaves_behind_is_read_and_drawn(lake: Lake) -> None:
    version, probabilities = named("reward model"), [0.55 + 0.44 * n / 60 for n in range(60)]
    rows = list(rows_about([{"id": f"pair-{n}"} for n in range(60)], probabilities))
    table = pa.Table.from_pylist(
        [{"id": one, **row} for one, row in zip(ids(version, 60), rows, strict=True)]
    )
    write(lake, "metrics", version, "train_reward_model", table, {})
    assert reliability_of(lake, version) == reliability(probabilities)
    picture = Image.open(
        io.BytesIO(
            base64.b64decode(calibration(lake, version).partition("base64,")[2].removesuffix(")"))
        )
    )
    assert picture.size == (500, 340)
    assert calibration(lake, named("another")) == ""


def test_the_picture_of_the_report_names_its_axes_and_counts_each_bin() -> None:
    drawn = str(
        svg.reliability(
            [Confidence(confidence=0.6, right=0.5, low=0.3, high=0.7, n=1234)],
            "sure, %",
            "right, %",
        )
    )
    assert ">1,234</text>" in drawn and ">sure, %</text>" in drawn and ">right, %</text>" in drawn
    assert drawn.count('class="point"') == 1
    assert [f">{tick}</text>" in drawn for tick in (50, 100)] == [True, True]
