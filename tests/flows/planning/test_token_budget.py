"""A budget of sampled tokens is kept by fewer prompts or rounds, in the worst case, and found
without running anything.
"""

import pytest

from dapflow.flows.align import chosen
from dapflow.flows.planning.token_budget import tokens_at_most, within
from dapflow.flows.recipes.changes import change
from dapflow.storage import UserError
from tests.helpers.toy import SMALL

SETTINGS = SMALL  # 4 prompts, 3 answers of at most 6 tokens


@pytest.mark.parametrize(
    ("recipe", "settings", "tokens"),
    [
        ("rso", (), 2 * 4 * 3 * 6),  # two iterations
        ("dpo", (), 0),  # people's pairs
        ("iterative-dpo", (), 4 * 3 * 6),  # of the two iterations the first takes people's pairs
        ("oaif", ("rounds.count=5", "rounds.prompts=2"), 2 * 5 * 2 * 3 * 6),
        (
            "self-rewarding",
            ("judgements.prompts=5",),
            2 * 5 * 12 + 4 * 3 * 6,
        ),  # 12 tokens a judgement; the making of prompts is not counted
        (
            "rejection-sampling",
            ("sweep.temperatures=[0.5, 1.5]", "sweep.prompts=2"),
            2 * (4 + 2 * 2) * 3 * 6,
        ),
    ],
)
def test_the_worst_case_is_every_answer_of_the_training_as_long_as_it_may_be(
    recipe: str, settings: tuple[str, ...], tokens: int
) -> None:
    assert tokens_at_most(chosen(recipe, [*SETTINGS, *settings], toy=True), 2) == tokens


def test_what_fits_stays_as_it_is_and_the_rest_takes_as_many_prompts_as_fit() -> None:
    recipe = chosen("rso", SETTINGS, toy=True)
    assert within(recipe, 1, None).settings == within(recipe, 1, 72).settings == ()
    fitted = within(recipe, 1, 71)
    assert (fitted.settings, fitted.tokens) == (("prompts.per_iteration=3",), 54)
    assert tokens_at_most(change(recipe, fitted.settings), 1) == 54
    assert within(recipe, 2, 71).settings == (
        "prompts.per_iteration=1",
    )  # 2 x 18: two prompts would be 72


def test_rounds_become_fewer_and_the_prompts_they_draw_from_stay() -> None:
    recipe = chosen("oaif", [*SETTINGS, "rounds.count=7", "rounds.prompts=2"], toy=True)
    assert within(recipe, 1, 130).settings == ("rounds.count=3",)  # 36 tokens a round


def test_rounds_that_come_later_become_fewer_too() -> None:
    recipe = chosen("rejection-sampling", ["rounds.count=24", "rounds.prompts=32"], toy=True)
    assert [one.partition("=")[0] for one in within(recipe, 4, 900).settings] == [
        "prompts.per_iteration"
    ]
    fitted = within(recipe, 6, 4000)
    assert [one.partition("=")[0] for one in fitted.settings] == [
        "prompts.per_iteration",
        "rounds.count",
    ]
    assert fitted.tokens <= 4000


def test_a_budget_that_not_even_one_prompt_fits_is_refused() -> None:
    with pytest.raises(
        UserError,
        match="rso samples up to 18 tokens even of the fewest prompts, more than the 17 that it may",
    ):
        within(chosen("rso", SETTINGS, toy=True), 1, 17)
