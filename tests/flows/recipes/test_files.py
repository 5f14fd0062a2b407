"""A user's own recipe is a file; what is wrong with it is said in a sentence that names the file
and the field.
"""

from pathlib import Path

import pytest

from dapflow.flows.recipes.changes import at, origins
from dapflow.flows.recipes.files import find_recipe, own_recipe
from dapflow.flows.recipes.methods import OAIF, RECIPES, RSO
from dapflow.storage import UserError
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.training.losses.loss import Loss
from tests.helpers.toy import dapflow


def test_a_yaml_file_names_its_base_and_what_differs(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: rso\nsampling: {temperature: 0.9}\nloss: {name: hinge-norm, gamma: 0.1}\ndata: [preferences, samples]\n"
    )
    mine = find_recipe(str(file))
    assert (mine.name, mine.sampling.temperature, mine.data) == (
        "mine",
        0.9,
        ("preferences", "samples"),
    )
    assert mine.loss == Loss.of("hinge_norm", gamma=0.1)
    assert mine.sampling.top_k == RSO.sampling.top_k


def test_a_judge_in_yaml_may_be_an_llm(tmp_path: Path) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(
        "base: oaif\njudge:\n  kind: llm\n  endpoint: {model: some-model}\n  instruction: the shorter one\n"
    )
    judge = find_recipe(str(file)).judge
    assert isinstance(judge, LLM)
    assert (judge.endpoint.model, judge.instruction) == ("some-model", "the shorter one")


def test_a_yaml_file_may_say_that_later_iterations_differ(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: rso\nthen:\n  iteration: 2\n  changes: {loss: ipo, sampling: {n: 4}}\n")
    mine = find_recipe(str(file))
    later = at(mine, 2)
    assert (at(mine, 1), later.loss, later.sampling) == (
        mine,
        Loss.of("ipo"),
        mine.sampling.model_copy(update={"n": 4}),
    )


def test_a_python_file_has_a_recipe_by_that_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        'from dapflow.flows.recipes.methods import OAIF\nRECIPE = OAIF.model_copy(update={"name": "mine", "seed": 7})\n'
    )
    assert find_recipe(str(file)) == OAIF.model_copy(update={"name": "mine", "seed": 7})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.yaml",
            "base: rso\nsampling: {temprature: 1}",
            "a.yaml: .*no key `sampling.temprature`: did you mean `sampling.temperature`",
        ),
        (
            "a.yaml",
            "base: rso\nsampling: {temperature: -1}",
            "a.yaml: .*`sampling.temperature` must be greater than or equal to 0",
        ),
        ("a.yaml", "base: rs0", "a.yaml: There is no recipe `rs0`"),
        ("a.yaml", "sampling: {n: 2}", "needs `base: NAME`"),
        ("a.yaml", "base: [", "cannot be read as YAML"),
        ("a.yaml", "base: rso\ndata: offline", "`data.0` must be 'samples', 'preferences'"),
        (
            "a.yaml",
            "base: dpo\ndata: samples",
            "judge: `none` goes with data `preferences`, `gold` and `seeds` only",
        ),
        ("a.yaml", "base: rso\nacceptance: {rule: best}", "set trains_on to answers"),
        ("a.py", "RECIPE = 3", "it has no RECIPE"),
        ("a.py", "import nothing_of_this_name", "cannot be imported .ModuleNotFoundError"),
        (
            "a.py",
            'from dapflow.flows.recipes.methods import RSO\nRECIPE = RSO.model_copy(update={"seed": -1})',
            "`seed` must be greater than or equal to 0",
        ),
        (
            "b.py",
            'from dapflow.flows.recipes.methods import RSO\nRECIPE = RSO.model_copy(update={"los": RSO.loss})',
            "there is no key `los`",
        ),
        (
            "c.py",
            "from dapflow.flows.recipes.methods import RSO\nfrom dapflow.tasks.sampling.engines.base import Sampling\n"
            'RECIPE = RSO.model_copy(update={"sampling": RSO.sampling.model_copy(update={"temprature": 1})})',
            "there is no key `sampling.temprature`",
        ),
        (
            "c.py",
            'from dapflow.flows.recipes.methods import OAIF\nRECIPE = OAIF.model_copy(update={"sampling": {"temperature": 0.8}})',
            "`sampling` is a dict in model_copy, .* write BASE.sampling.model_copy",
        ),
        ("c.py", "import sys\nsys.exit(3)", "c.py: it cannot be imported .SystemExit: 3"),
        (
            "d.py",
            "from dapflow.tasks.sampling.engines.base import Sampling\nRECIPE = Sampling(n=0)",
            "`n` must be greater than or equal to 1, not 0",
        ),
    ],
)
def test_what_is_wrong_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        find_recipe(str(tmp_path / name))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(UserError, match=r"no file nowhere.yaml"):
        find_recipe("nowhere.yaml")


def test_every_value_says_where_it_comes_from() -> None:
    told = origins(RSO)
    assert told["acceptance.keep"].startswith(
        "recipe; candidates that `rso` accepts"
    )  # 4, where the default is 8
    assert told["acceptance.beta"].startswith("default; temperature of exp")
    told |= {f"self {key}": said for key, said in origins(RECIPES["self-rewarding"]).items()}
    assert told["self judgements.sampling.max_tokens"].startswith(
        "default; "
    )  # 160 there, where samples have 64
    assert told["self sampling.n"].startswith("recipe; ")
    assert (
        told["loss"]
        == "recipe; DPO, arXiv 2305.18290, eq. 7; cDPO with label_smoothing; RSO's sigmoid-norm"
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_as_it_is_printed_is_a_file_of_one_s_own(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed, _ = dapflow("recipes", name, capsys=capsys)
    assert code == 0
    file = tmp_path / "mine.yaml"
    file.write_text(f"base: {'dpo' if name == 'rso' else 'rso'}\n{printed}")
    assert own_recipe(file) == RECIPES[name]
