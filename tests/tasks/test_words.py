"""Three ways to part a text, and runs of what they give."""

from dapflow.tasks.words import ascii_words, ngrams, words, words_and_marks


def test_each_way_keeps_what_it_says() -> None:
    text = "It's Größe 7!"
    assert words(text) == ["it", "s", "größe", "7"]
    assert ascii_words(text) == ["it", "s", "gr", "e", "7"]
    assert words_and_marks(text) == ["it", "'", "s", "größe", "7", "!"]


def test_a_text_shorter_than_a_run_has_none() -> None:
    assert ngrams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert ngrams(["a"], 2) == []
