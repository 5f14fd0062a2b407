"""Each rule of constraints on answers that follow it and on answers that do not, odd ones among
them.
"""

import json
from typing import Any

import pytest

from dapflow.tasks.judging.constraints import follows, follows_one
from dapflow.tasks.prompts.constraints import RULES, constraints_of

SHORT = {"rule": "words", "at_most": 5}
ONE_WORD = {"rule": "words", "exactly": 1}
TWO = {"rule": "sentences", "exactly": 2}
POINTS = {"rule": "items", "exactly": 3}
STEPS = {"rule": "numbered", "exactly": 3}
CAT = {"rule": "contains", "words": ["cat"]}
NO_CAT = {"rule": "excludes", "words": ["cat", "dog"]}
NO_E = {"rule": "without", "characters": "e"}
NO_COMMA = {"rule": "without", "characters": ","}
DEAR = {"rule": "starts_with", "text": "Dear Tom"}
HOME = {"rule": "ends_with", "text": "home"}
THE_END = {"rule": "ends_with", "text": "The end."}
ASKS = {"rule": "ends_with", "text": "?"}
KEYS = {"rule": "json", "keys": ["name", "age"]}
LOWER, UPPER, QUOTED = ({"rule": rule} for rule in ("lowercase", "uppercase", "quoted"))
GERMAN, FRENCH, SPANISH, ITALIAN, ENGLISH = (
    {"rule": "language", "is": name}
    for name in ("German", "French", "Spanish", "Italian", "English")
)

FOLLOW = [
    (TWO, "It rains, e.g. in May. It pours."),
    (TWO, "It costs 3.50 euros. Buy it... now!"),
    (TWO, "**Yes!** 🎉 It works."),
    (TWO, 'She said, "Go!" and left.\r\nHe stayed. '),
    ({"rule": "sentences", "at_most": 2}, "One only"),
    ({"rule": "sentences", "at_least": 2}, "One. Two. Three."),
    (SHORT, "Five words are not many."),
    (SHORT, "**Bold** - and *so* on …"),
    (SHORT, "A well-known mother-in-law's don't-care look"),
    (SHORT, "- one two\n- three four"),
    (SHORT, "1. one two\n2. three four"),
    (SHORT, "😀 🎉 1 2 3 4 5"),
    (ONE_WORD, "42."),
    (ONE_WORD, " “Hello!” \r\n"),
    ({"rule": "words", "at_least": 3}, "wait...what now"),
    ({"rule": "words", "at_least": 2, "at_most": 3}, "either—or"),
    (POINTS, "- one\n- two\n- three"),
    (POINTS, "Here they are:\r\n\r\n* one\r\n* two\r\n* three\r\n"),
    (POINTS, "  - **one**: a - b\n\n  - two\n\n  - three\n\n---\nThat is all."),
    (STEPS, "1. one\n2. two\n3. three"),
    (STEPS, "Do this:\n\n1) one\n   more of it\n2) two\n3) three"),
    (STEPS, "**1.** one\r\n**2. two**\r\n  3. three 4. no line"),
    ({"rule": "lines", "exactly": 2}, "one\ntwo"),
    ({"rule": "lines", "exactly": 2}, "one\r\n\r\n \r\ntwo\r\n"),
    ({"rule": "lines", "exactly": 2}, "\n\n- one, which is long. Two.\rtwo"),
    (CAT, "A CAT!"),
    (CAT, "the cat's tail, the “cat”"),
    (CAT, "_cat_-like"),
    ({"rule": "contains", "words": ["eau", "Straße"]}, "De l’eau, STRASSE"),
    ({"rule": "contains", "words": ["Good  morning"]}, "good\nmorning"),
    ({"rule": "contains", "words": ["café"]}, "un cafe\u0301 noir"),
    (NO_CAT, "A caterpillar, a dogma, cats"),
    (NO_CAT, "concatenate"),
    ({"rule": "excludes", "words": ["don"]}, "I don't"),
    (NO_E, "A big cat sits."),
    (NO_E, "Ö, Ä and é"),
    (NO_COMMA, "one; two"),
    ({"rule": "without", "characters": "s"}, "groß"),
    (DEAR, "dear tom, how are you?"),
    (DEAR, "**Dear Tom**,\n"),
    (DEAR, "\n“Dear  Tom!”"),
    ({"rule": "starts_with", "text": "Don't"}, "Don’t go"),
    (HOME, "I am home"),
    (HOME, "We went HOME."),
    (HOME, '"Let us go **home**."\n'),
    (HOME, "Is nobody home?!"),
    (THE_END, "And so they slept. THE END.\r\n"),
    (THE_END, "**The end.**"),
    (THE_END, "The\nend."),
    (ASKS, "Is it?"),
    ({"rule": "ends_with", "text": "!"}, "*Go!*  "),
    (KEYS, '{"name": "Tom", "age": 3}'),
    (KEYS, ' {"age": {"name": [1, {"deep": null}]},\r\n"name": ","}\n'),
    (KEYS, '```json\n{"name": "```", "age": 3}\n```'),
    (KEYS, '```\n{"name": "", "age": 1e5}```'),
    (LOWER, "all small, 42 — ß é ñ 🎉"),
    (LOWER, "i said “no.”"),
    (LOWER, "1ª 日本"),
    (UPPER, "ALL LARGE, 42 É Ñ!"),
    (UPPER, "DIE STRAßE, 1ª"),
    (UPPER, "1. EINS\n2. ZWEI"),
    (GERMAN, "Die Blätter werden im Herbst bunt."),
    (GERMAN, "1. zuerst schneidest du das obst\n2. dann mischst du alles"),
    (GERMAN, "BITTE VERGISS NICHT, DIE PFLANZEN ZU GIESSEN!"),
    (FRENCH, "Une araignée attend sa proie dans sa toile."),
    (FRENCH, "« bonjour, j’espère que tu as bien dormi »"),
    (FRENCH, "**IL FAUT DE LA FARINE, DE L'EAU ET DU SEL**"),
    (SPANISH, "¡No olvides regar las plantas, por favor!"),
    (SPANISH, "en verano los niños comen helado junto al lago"),
    (SPANISH, "- Corta la fruta\n- Mezcla todo en un cuenco grande"),
    (ITALIAN, "Il tempo è bello e andiamo al parco."),
    (ITALIAN, "per fare il pane servono farina, acqua e lievito"),
    (ITALIAN, "BUONGIORNO, SPERO CHE TU ABBIA DORMITO BENE"),
    (ENGLISH, "Once upon a time there was a dog."),
    (ENGLISH, "the weather is fine in München"),
    (ENGLISH, "MY FAVOURITE BOOK IS ABOUT A SMALL DRAGON"),
    (QUOTED, '"Hello there."'),
    (QUOTED, " “She said ‘no.’ Then “yes.””\r\n"),
    (QUOTED, '**"He said "hi" to me."**'),
    (QUOTED, "„Guten Tag“"),
    (QUOTED, '"One.\n\nTwo."'),
]  # fmt: skip
FAIL = [
    (TWO, "One. Two. Three."),
    (TWO, "Only this, i.e. nothing else"),
    (TWO, "Dr. Brown met Mr. J. Smith at 3.30 p.m. in St. Ives."),
    (TWO, "One. Two. And a cut-off"),
    ({"rule": "sentences", "at_most": 1}, "One! Two?"),
    ({"rule": "sentences", "at_least": 2}, "“Where?” he asked"),
    (SHORT, "There are six words in here."),
    (SHORT, "one two—three four…five six"),
    (SHORT, "1. one two three\n2. four five six"),
    (ONE_WORD, "42 is"),
    (ONE_WORD, "🎉"),
    ({"rule": "words", "at_least": 3}, "- one\n- two\n-"),
    (POINTS, "- one\n- two"),
    (POINTS, "• one\n• two\n• three"),
    (POINTS, "-one\n-two\n-three"),
    (POINTS, "**one**\n**two**\n**three**"),
    (POINTS, "- one\n- two\n- three\n  - and below it"),
    (POINTS, "- one\n- two\n- - -"),
    (POINTS, "– one\n– two\n– three"),
    (STEPS, "1. one\n2. two"),
    (STEPS, "1. one\n1. two\n1. three"),
    (STEPS, "2. two\n3. three\n4. four"),
    (STEPS, "1. one 2. two 3. three"),
    (STEPS, "1. one\n2. two\n3."),
    (STEPS, "1.5 litres\n2.5 litres\n3.5 litres"),
    (STEPS, "- one\n- two\n- three"),
    ({"rule": "lines", "exactly": 2}, "one"),
    ({"rule": "lines", "exactly": 2}, "one\n\ntwo\n\nthree"),
    ({"rule": "lines", "exactly": 2}, "one. two.\\n"),
    (CAT, "concatenate, cats, category"),
    (CAT, "A dog."),
    (CAT, "cat2"),
    ({"rule": "contains", "words": ["cat", "dog"]}, "only a cat"),
    ({"rule": "contains", "words": ["don"]}, "I don't"),
    (NO_CAT, "My Cat."),
    (NO_CAT, "a DOG’s life"),
    (NO_CAT, "cat-like"),
    (NO_E, "The end"),
    (NO_E, "EVIL"),
    (NO_E, "```\ne\n```"),
    (NO_COMMA, "1,000"),
    (NO_COMMA, '{"a": 1, "b": 2}'),
    (DEAR, "My dear Tom"),
    (DEAR, "Dear Tommy"),
    (DEAR, "1. Dear Tom"),
    (DEAR, "Dear\u00adTom"),
    (HOME, "homes"),
    (HOME, "We live in a rehome"),
    (HOME, "home is where we are"),
    (HOME, "home 🎉"),
    (THE_END, "The end"),
    (THE_END, "The end!"),
    (THE_END, 'He wrote "The end."'),
    (ASKS, "Is it? Yes"),
    (ASKS, "Is it?)"),
    (ASKS, "Is it? 🎉"),
    (KEYS, '{"name": "Tom"}'),
    (KEYS, '{"name": "Tom", "age": 3, "more": 1}'),
    (KEYS, '{"name": "Tom", "age": 3, "age": 4}'),
    (KEYS, '{"Name": "Tom", "age": 3}'),
    (KEYS, '[{"name": "Tom", "age": 3}]'),
    (KEYS, '[["name", 1], ["age", 2]]'),
    (KEYS, "{'name': 'Tom', 'age': 3}"),
    (KEYS, '{"name": "Tom", "age": NaN}'),
    (KEYS, '{"name": "Tom", "age": 3'),
    (KEYS, '{"name": "Tom", "age": 3,}'),
    (KEYS, 'Here it is:\n```json\n{"name": "Tom", "age": 3}\n```'),
    (KEYS, '{"a": ' * 5_000),
    (LOWER, "All small"),
    (LOWER, "not É"),
    (LOWER, "ǅ"),
    (UPPER, "NOT é"),
    (UPPER, "McDONALD"),
    (UPPER, "ALL BUT i"),
    (GERMAN, "The leaves change colour in autumn."),
    (GERMAN, "De bladeren veranderen van kleur in de herfst."),
    (GERMAN, "Bladene skifter farve om efteråret."),
    (FRENCH, "Las hojas cambian de color en otoño."),
    (FRENCH, "Bonjour means good morning in that language."),
    (FRENCH, "42"),
    (SPANISH, "As folhas mudam de cor no outono porque a clorofila desaparece."),
    (SPANISH, "Le foglie cambiano colore in autunno."),
    (SPANISH, "Les fulles canvien de color a la tardor."),
    (ITALIAN, "Hace buen tiempo y vamos al parque."),
    (ITALIAN, "Il fait beau et nous allons au parc."),
    (ITALIAN, "Frunzele își schimbă culoarea toamna."),
    (ENGLISH, "Het weer is mooi en wij wandelen in het park."),
    (ENGLISH, "Guten Morgen, ich hoffe, du hast gut geschlafen."),
    (ENGLISH, "Folia autumno colorem mutant."),
    (QUOTED, "'Hello there.'"),
    (QUOTED, '"Hello there".'),
    (QUOTED, '"Hello," she said, "there."'),
    (QUOTED, "“Hello.” “There.”"),
    (QUOTED, 'She said "hello"'),
    (QUOTED, '""'),
    (QUOTED, '"'),
    (QUOTED, '"Cut off before'),
]  # fmt: skip


def one(fields: dict[str, Any]) -> Any:
    return constraints_of([fields], "a test")[0]


@pytest.mark.parametrize(("fields", "answer"), FOLLOW)
def test_an_answer_that_follows(fields: dict[str, Any], answer: str) -> None:
    assert follows_one(one(fields), answer), json.dumps(fields)


@pytest.mark.parametrize(("fields", "answer"), FAIL)
def test_an_answer_that_does_not(fields: dict[str, Any], answer: str) -> None:
    assert not follows_one(one(fields), answer), json.dumps(fields)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_tried_on_three_answers_that_follow_and_three_that_do_not(rule: str) -> None:
    assert min(sum(fields["rule"] == rule for fields, _ in some) for some in (FOLLOW, FAIL)) >= 3


@pytest.mark.parametrize("fields", [fields for fields, _ in FAIL])
@pytest.mark.parametrize("answer", ["", " \r\n\t"])
def test_an_empty_answer_follows_nothing(fields: dict[str, Any], answer: str) -> None:
    assert follows([one(fields)], answer) == 0.0


def test_the_share_is_of_the_constraints() -> None:
    constraints = [one(fields) for fields in (LOWER, SHORT, CAT)]
    assert follows(constraints, "a cat") == 1.0
    assert follows(constraints, "A cat") == pytest.approx(2 / 3)
    assert follows(constraints, "Is there anything else to be seen in here?") == 0.0
