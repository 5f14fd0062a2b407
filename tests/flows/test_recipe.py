"""Recipes are values; what is wrong with one is said in a sentence that names the key."""

import pytest

from flows.recipe import Recipe, change
from flows.recipes import RECIPES, RSO, recipe_named, toy
from storage import UserError
from tasks.training.losses import Loss


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sampling.temprature=1", r"no key `sampling.temprature`: did you mean `sampling.temperature`\?"),
        ("zzz=1", r"no key `zzz`: `dapflow recipes NAME` prints all keys"),
        ("sampling.temperature=-1", r"`sampling.temperature` must be greater than or equal to 0, not -1"),
        ("sampling.temperature=hot", r"`sampling.temperature` must be a valid number.*'hot'"),
        ("sampling.top_p=0", r"`sampling.top_p` must be greater than 0"),
        ("acceptance.rule=best", r"`acceptance.rule` must be 'rso' or 'all', not 'best'"),
        ("acceptance.keep=1", r"`acceptance.keep` must be greater than or equal to 2"),
        ("loss=dpo2", r"there is no loss 'dpo2'; choose one of .*sigmoid"),
        ("loss.gamma=1", r"has no option 'gamma'; its options are beta"),
        ("sampling", r"write it as key=value"),
        ("sampling=3", r"`sampling`"),
        ("training.learning_rate=0", r"`training.learning_rate` must be greater than 0"),
        ("training.processes=0", r"`training.processes` must be greater than or equal to 1"),
        ("reward.kind=pairwise", r"set `parameters` to lora or full"),
        ("sampler.engine=openai", r"`sampler`: engine: openai needs endpoint.model"),
        ("sampler.serve=vllm", r"goes with engine openai, and its command must take \{port\}"),
        ("policy.name=x", r"no key `policy.name`"),
        ("name=[", r"cannot be read as YAML"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        change(RSO, [setting])


def test_settings_are_applied_in_order() -> None:
    changed = change(RSO, ["loss=hinge-norm", "loss.gamma=0.1", "sampling.temperature=0.9", "sampling.system=null", "training.epochs=2"])
    assert changed.loss == Loss.of("hinge_norm", gamma=0.1)
    assert (changed.sampling.temperature, changed.sampling.system, changed.training.epochs) == (0.9, None, 2)
    assert RSO.sampling.temperature == 0.7  # a recipe is a value: the original stays


def test_a_recipe_survives_its_plain_form() -> None:
    for recipe in RECIPES.values():
        assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_an_unknown_recipe_lists_the_known() -> None:
    with pytest.raises(UserError, match="no recipe `rs0`: choose one of rso, rso-hinge"):
        recipe_named("rs0")


def test_a_made_up_method_is_one_value() -> None:
    mine = RSO.model_copy(update={"name": "mine", "loss": Loss.of("ipo", tau=0.5)})
    assert toy(mine).loss == Loss.of("ipo", tau=0.5)
    assert (toy(mine).name, toy(mine).policy) == ("mine", "toy")
