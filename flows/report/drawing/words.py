"""What differs between two texts, word by word. Pure functions.

marked("a big cat", "a small cat")  ->  ([("a ", False), ("big ", True), ("cat", False)], [("a ", False), ("small ", True), ("cat", False)])
"""

import difflib
import re

Marked = list[tuple[str, bool]]
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+")
_LIKE = 0.12  # of the words, in common: below, all that can be told is that the texts differ
_MOST = 2_000  # words: beyond, comparing takes longer than reading helps


def marked(before: str, after: str) -> tuple[Marked, Marked]:
    """Both texts in runs, each with whether the other lacks it. Two texts that share little are
    left unmarked: then everything differs.
    """
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > _MOST:
        return [(before, False)], [(after, False)]
    matcher = difflib.SequenceMatcher(
        a=[one.strip() for one in old], b=[one.strip() for one in new], autojunk=False
    )
    if matcher.ratio() < _LIKE:
        return [(before, False)], [(after, False)]
    left: Marked = []
    right: Marked = []
    for what, i, j, k, l in matcher.get_opcodes():
        left += [("".join(old[i:j]), what != "equal")] if i < j else []
        right += [("".join(new[k:l]), what != "equal")] if k < l else []
    return left, right
