"""The pool grows by what is new only, ends, and is the same every time."""

from typing import Any

from dapflow.tasks.self_instruct.growth import Growth
from dapflow.tasks.self_instruct.settings import SelfInstruct

ONE = SelfInstruct(per_round=1)
SEEDS = [
    "Explain the sea to me.",
    "Why does rain fall down?",
    "Count to ten in Dutch.",
    "Invent a word for joy.",
    "Who was Ada Lovelace?",
]
SEEDS += [
    "Sum up the plot of Hamlet.",
    "Is glass a liquid?",
    "Suggest names for our dog.",
    "How do magnets work?",
]


def rows(*texts: str) -> list[dict[str, Any]]:
    return [{"id": f"s-{place}", "prompt": text} for place, text in enumerate(texts)]


def reply(text: str, finish_reason: str = "stop", number: int = 0) -> dict[str, Any]:
    return {"id": f"c-{number}", "text": text, "finish_reason": finish_reason}


def grown(
    *replies: dict[str, Any],
    seeds: list[str] = SEEDS,
    held_out: tuple[str, ...] = (),
    count: int = 9,
) -> Growth:
    growth = Growth(rows(*seeds), rows(*held_out), [], ONE, count=count, seed=0)
    for one in replies:
        growth.take([one])
    return growth


def test_what_overlaps_with_a_seed_a_held_out_prompt_or_an_earlier_reply_is_left_out() -> None:
    growth = grown(
        reply(
            "Explain the sea to me please.\n"  # a seed has 5 of its 6 words: 2 x 5 / 11 = 0.91
            "10. List two ways of saving water at home.\n"
            # held out, but for one word: 2 x 6 / 13 = 0.92
            "11. What is the capital of Peru today?\n"
            "12. List two ways of saving money at home.\n"  # 7 of 8 words of the last but one: 0.88
            "13. Rhyme.\n"
        ),
        reply("Compare tea with coffee as a drink.", "length"),
        held_out=("What is the capital of Peru?",),
    )
    assert [one.text for one in growth.made] == ["List two ways of saving water at home."]
    assert growth.left_out == [{"not_new": 2, "held_out": 1, "too_short": 1}, {"truncated": 1}]


def test_seeds_that_overlap_with_held_out_prompts_are_never_shown() -> None:
    growth = grown(held_out=("Why does rain fall down now?",))
    assert growth.hidden == 1
    for _ in range(20):
        assert all("rain" not in shown.text for context in growth.contexts() for shown in context)
        growth.round += 1


def test_six_seeds_and_two_of_its_own_are_shown_as_soon_as_there_are_two() -> None:
    growth = grown()
    assert [shown.id is None for shown in growth.contexts()[0]].count(True) == 0
    assert len(growth.contexts()[0]) == 8
    growth.take(
        [
            reply(
                "Compare tea with coffee.\n10. Name five very old towns.\n11. Say why cats sleep so much."
            )
        ]
    )
    own = [shown.place for shown in growth.contexts()[0] if shown.id is None]
    assert len(own) == len(set(own)) == 2
    assert len(growth.contexts()[0]) == 8
    assert growth.contexts() == growth.contexts()


def test_every_prompt_knows_its_reply_and_what_that_was_shown() -> None:
    first = grown()
    [context] = first.contexts()
    first.take([reply("Compare tea with coffee.\n10. Name five very old towns.", number=7)])
    assert [(one.reply, one.context) for one in first.made] == [("c-7", context)] * 2


def test_growth_ends_with_enough_prompts_or_after_rounds_in_vain() -> None:
    enough = grown(
        reply(
            "Compare tea with coffee.\n10. Name five very old towns.\n11. Say why cats sleep so much."
        ),
        count=2,
    )
    assert enough.ended
    assert len(enough.made) == 2
    vain = grown(reply("Hm."), reply("Hm."))
    assert not vain.ended
    vain.take([reply("Compare tea with coffee.")])
    vain.take([reply("Hm.")])
    vain.take([reply("Hm.")])
    assert not vain.ended
    vain.take([reply("Hm.")])
    assert vain.ended


def test_without_a_seed_that_may_be_shown_nothing_is_asked() -> None:
    assert grown(seeds=["Explain the sea to me."], held_out=("Explain the sea to me.",)).ended
