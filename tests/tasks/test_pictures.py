"""Curves become a picture that the page of the step can show."""

import base64
import io

import pyarrow as pa
from PIL import Image

from dapflow.storage import Lake
from dapflow.tasks.pictures import training_curves
from tests.helpers.lakes import ids, named, write


def test_the_curves_of_a_training_are_a_png_in_markdown(lake: Lake) -> None:
    version = named("trained")
    names = ["loss", "margin", "kl", "accuracy"]
    metrics = pa.table(
        {
            "id": ids(version, 4 * 50), "subject": [version] * 200, "name": names * 50,
            "step": [step for step in range(50) for _ in names], "value": [1 / (1 + n) for n in range(200)],
        }
    )  # fmt: skip
    write(lake, "metrics", version, "train", metrics, {})
    markdown = training_curves(lake, version)
    head, _, data = markdown.partition("base64,")
    assert head == "![training curves](data:image/png;"
    picture = Image.open(io.BytesIO(base64.b64decode(data.removesuffix(")"))))
    assert picture.size == (900, 460)
    assert len(picture.getcolors(maxcolors=1 << 20) or ()) > 20  # lines, not an empty sheet
    assert len(markdown) < 100_000


def test_a_model_without_curves_has_no_picture(lake: Lake) -> None:
    assert training_curves(lake, named("untrained")) == ""
