"""How many sentences a text has, odd ones among them."""

import pytest

from dapflow.tasks.judging.sentences import sentences

COUNTED = {
    # plain ones
    "The sky is blue.": 1,
    "The sky is blue": 1,
    "The sky is blue. Grass is green.": 2,
    "It rains. It pours! Does it stop?": 3,
    "First line.\nSecond line.\nThird line.": 3,
    "One.\r\n\r\nTwo.\r\nThree.": 3,
    "  Spaces around.   And between.  ": 2,
    "It was cut off. And then the": 2,
    "": 0,
    "...": 0,
    "What?! No way!!! Really...?": 3,
    "Wow ! Great ! Yes.": 3,
    "The sky is blue.It is big.": 2,
    # abbreviations, names, numbers
    "Bring fruit, e.g. apples or pears.": 1,
    "It has two parts, i.e. a lid and a box. Both fit.": 2,
    "Dr. Smith met Mrs. Jones at St. Mary's.": 1,
    "We met at 5 p.m. in the hall.": 1,
    "We met at 5 p.m. The hall was full.": 2,
    "She lives in the U.S. and works there.": 1,
    "She lives in the U.S. It is large.": 2,
    "J. R. R. Tolkien wrote it. I read it.": 2,
    "Buy apples, pears, etc. and bring them home.": 1,
    "Buy apples, pears, etc. Then come home.": 2,
    "It costs 3.50 dollars. That is approx. 3 euros.": 2,
    "See No. 5 on p. 12. It is good.": 2,
    "He has a Ph.D. in physics.": 1,
    "Oranges have vitamin C. Lemons do too.": 2,
    "So do I. Then we agree.": 2,
    "Visit example.com or read file.txt today.": 1,
    "Cats vs. dogs is an old question.": 1,
    "It was 1990. Nobody knew.": 2,
    "Smith et al. found it. Others agreed.": 2,
    "Acme Inc. makes boxes. They are good.": 2,
    "Add 2 tbsp. of oil. Stir.": 2,
    # dots that go on
    "Well... maybe not.": 1,
    "Well… I think so.": 1,
    "He waited... Nobody came.": 2,
    "And then… Silence fell.": 2,
    # quotation marks, brackets, emphasis
    '"Stop!" he said.': 1,
    '"Stop!" Tom said.': 1,
    "“Where are you?” she asked. “Here,” he replied.": 2,
    '"I am here." She smiled.': 2,
    'She said, "Go home."': 1,
    "He left (it was late). She stayed.": 2,
    "He left. (It was late.) She stayed.": 3,
    "**It works.** *Really!* Try it.": 3,
    "Is this (really?) true.": 1,
    "It is known.[1] Nobody doubts it.": 2,
    '"The sea is calm tonight."': 1,
    "The U.S. Army is large. iPhones are not.": 2,
    "By J. A. Smith. It is a book.": 2,
    "is this (really?) so. (it is.) fine.": 3,
    # emoji
    "Great! 🎉 It works.": 2,
    "It works. 🎉": 1,
    "Time flies!🎉 Enjoy it.❤️": 2,
    "I am happy 😀": 1,
    # lines
    "Roses are red,\nviolets are blue.": 1,
    "Roses are red,\nViolets are blue,\nSugar is sweet.": 1,
    "# The Lost Mitten\n\nA mitten was lost. It was found.": 2,
    "**The Lost Mitten**\n\nA mitten was lost. It was found.": 2,
    "Here is a story:\n\nA mitten was lost.": 2,
    "- Eggs are white.\n- Milk is too.": 2,
    "- Eggs\n- Milk": 2,
    "1. Boil water.\n2. Add tea.\n3. Wait.": 3,
    "How much is it? 4.": 2,
    "Two things help: 1. sleep 2. food.": 1,
    # one case
    "the sky is blue. it is big. i like it.": 3,
    "it is late, e.g. after five p.m. or so. we go.": 2,
    '"where are you?" she asked. "here," he said.': 2,
    "THE SKY IS BLUE. IT IS BIG! MR. BEAN IS HERE.": 3,
    # other languages
    "Das Wetter ist schön, z. B. im Mai. Wir gehen.": 2,
    "Wir kaufen Brot, Milch usw. im Laden.": 1,
    "Am 3. Oktober ist frei. Alle feiern.": 2,
    "Ein Laib, d. h. ein Brot. Der 2. Tag kam.": 2,
    "¿Qué hora es? ¡Son las dos! El Sr. López llega.": 3,
    "Bonjour ! Comment ça va ? Mme. Dupont est là.": 3,
    "Il Sig. Rossi arriva. Porta pane, latte, ecc. per noi.": 2,
    "今天很好。我们去公园！": 2,
}


@pytest.mark.parametrize(("text", "count"), COUNTED.items())
def test_a_text_has_so_many_sentences(text: str, count: int) -> None:
    assert len(sentences(text)) == count, sentences(text)


def test_nothing_of_a_text_is_lost() -> None:
    text = 'Dr. Who said: "Run!" Then he ran... 🎉 **Fast.** Really?'
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
