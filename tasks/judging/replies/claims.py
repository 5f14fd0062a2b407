"""Which of two responses the sentences of a judge call the better one.

    claimed("Response 1 is better. Response 2 lacks detail.")  ->  "1"
    takes_back("On reflection, response 2 is more useful.", "1")  ->  True
A sentence counts only where the subject of "better" cannot be mistaken; what is negated,
conditional, asked, reported or said of both counts for nobody. Test: pytest
tests/tasks/judging/replies/test_parsing.py
"""

import re

_NOUN = r"(?:response|answer|option|candidate|completion|output|assistant)"
LABEL = (
    rf"(?:(?:the\s+)?(?:{_NOUN}|number|no\.?)\s*[#:_]?\s*(?:[12](?![\w/%]|[.,][0-9])|one\b|two\b)|#?(?<![\w.,/-])[12](?![\w/%]|[.,][0-9])"
    rf"|(?:the\s+)?(?:first|second)(?:\s+(?:{_NOUN}|one)))"
)
_ADVERB = (
    r"(?:(?:clearly|slightly|much|far|significantly|somewhat|marginally|noticeably|definitely|overall|simply|certainly|considerably|easily|"
    r"a\s+bit|a\s+little|by\s+far|still|therefore|thus|generally|obviously|really|substantially|moderately|also|just|of\s+course)\s+)*"
)
_WORD = r"(?:better|best|preferable|superior|stronger)"
_THING = rf"(?:\s+(?:{_NOUN}|one|choice|of\s+the\s+two))?"
_LEAD = (
    r"(?:(?:(?:so|thus|therefore|hence|overall|clearly|ultimately|finally|yes|here|in\s+(?:my\s+(?:view|opinion|judge?ment|assessment)|conclusion|"
    r"summary|short|sum|the\s+end|total)|to\s+(?:sum\s+up|conclude)|all\s+in\s+all|all\s+things\s+considered|on\s+(?:balance|the\s+whole|reflection)"
    r"|taken\s+together|as\s+a\s+result|for\s+(?:this|that|these|those)\s+reasons?|verdict|conclusion|of\s+the\s+two|(?:after|based\s+on|given|having|considering)\s[^,.;:!?0-9]{3,60})"
    r"\s*[,:]?\s+)|(?:while|although|though|even\s+though)\s[^.;!?]{3,120},\s+|[^.;!?]{3,160},\s+(?:but|so|and\s+so|thus|therefore|hence)\s+)?"
    r"(?:I(?:\s+(?:think|believe|find|feel|would\s+say|conclude)|'d\s+say)\s+(?:that\s+)?)?"
)
_END = rf"(?=\s*(?:$|[.,:;!)(—–-]|\s(?:(?:than|to)\s+(?:{LABEL}|the\s+other)|because|since|as|in|at|for|on|overall|here|by|and|but|while|whereas|with|due|given)\b))"
_NAMED_END = (  # of a number that names a response, and does not count something
    r"(?!\W*(?:or\b|[12](?!\w)))(?=\s*(?:$|[.,:;!)(—–-])|\s(?:because|since|as|in|at|for|on|overall|over|here|by|to|than|due|given|and|but|with|rather)\b)"
)
_CLAIM = re.compile(
    rf"{_LEAD}(?:(?P<a>{LABEL})\s*(?:\([^()]*\)\s*)?(?:(?:is|was|seems|looks)\s+{_ADVERB}(?:(?:the|a)\s+)?{_ADVERB}(?:{_WORD}{_THING}|winner)|{_ADVERB}wins|"
    rf"(?:serves|helps|answers)\s+the\s+(?:user|person(?:\s+who\s+ask(?:s|ed))?|question)\s+better){_END}"
    rf"|(?:the|my)\s+{_ADVERB}(?:(?:{_WORD}|preferred|winning){_THING}|winner|choice)\s+is\s+(?P<b>{LABEL}){_NAMED_END}"
    rf"|I(?:\s+would|'d)?\s+{_ADVERB}(?:prefer|choose|pick|select|favou?r|go\s+with|vote\s+for)\s+(?P<c>{LABEL}){_NAMED_END})",
    re.IGNORECASE,
)
_PRAISE = r"(?:better|best|preferable|preferred|superior|stronger|wins?|won|winner|winning|beats|outperforms|surpasses|prevails|edge|favou?red|chosen)"
_GAP = r"(?:\s+(?!(?:than|not|never|no|could|would|might|may|should|can|neither|hardly)\b)[\w'()-]+){0,4}?\s+"
_NAMED = re.compile(
    rf"(?P<a>{LABEL}){_GAP}{_PRAISE}\b|\b(?:{_PRAISE}{_THING}(?:\s+(?:is|was|would\s+be|goes\s+to))?\s*[:=]?|prefer|choose|pick|select|favou?r|"
    rf"go\s+with|vote\s+for|(?:verdict|answer|choice|mind)\s+(?:is|to)|in\s+favou?r\s+of|lean\s+towards?)\s+(?P<b>{LABEL})"
    rf"|(?:,|;|\band|\bbut|\bwhile|\bwhereas)\s+(?P<c>{LABEL})\s+(?:in|for|on|at|with|when|if)\b"
    rf"|^(?P<d>{LABEL})\s+(?:in|for|on|at|with)\s+(?:\w+\s*){{1,3}}[.!]?$|(?P<e>{LABEL})\s+is\s+the\s+one\s+(?:that\s+)?I\b",
    re.IGNORECASE,
)
_FAULTED = re.compile(
    rf"(?P<a>{LABEL}){_GAP}(?:worse|worst|weaker|inferior|loses?|lost)\b|(?P<b>{LABEL})\s+(?:is|was|does|wins?)\s*(?:not|n't)\s+(?:\w+\s+)?{_PRAISE}"
    rf"|\bnot\s+(?P<c>{LABEL})|\b(?:worse|weaker)(?:\s+{_NOUN})?\s*(?:is|:)\s*(?P<d>{LABEL})",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|unless|assuming|provided|depend\w*|whether|suppos\w+|in\s+case|either|had\s+it|were\s+it|imagine)\b",
    re.IGNORECASE,
)
_LIMITED = re.compile(
    r"\b(?:no|not|never|nowhere|only|merely|(?:in|at)\s+nothing|at\s+first|but\s+(?:it\s+)?isn't|so\s+it\s+(?:would\s+)?seems?|on\s+paper|in\s+theory|for\s+now|false|"
    r"(?:it\s+)?(?:says|claims)|according\s+to\s+it(?:self)?|it\s+(?:is\s+)?worse)\b",
    re.IGNORECASE,
)
_REPORTED = re.compile(
    r"\b(?:says?|said|claim\w*|states?|stated|argu\w+|writes?|wrote|suggest\w*|assert\w*|according|pretend\w*|insist\w*|tells?|asks?|asked|instruct\w*|"
    r"demand\w*|begins?|ends?|reads?|never|nobody|doubt\w*|deny|denies)\b",
    re.IGNORECASE,
)
_UNDECIDED = re.compile(
    r"\b(?:tie|tied|draw|equally|equal|no\s+(?:clear\s+)?(?:winner|preference|difference)|cannot|can't|hard\s+to|unclear|undecided|not\s+sure|unsure|"
    r"same\s+quality|neither|depends|it\s+(?:is\s+)?worse)\b",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:wait|actually|on\s+(?:reflection|second\s+thoughts?)|correction|sorry|revis\w+|reconsider\w*|change\s+my|instead|rather|make\s+that|i\s+mean|meant|edit|no)\b",
    re.IGNORECASE,
)
_RETRACTED = re.compile(
    r"\b(?:take\s+(?:that|it|this)\s+back|scratch\s+that|strike\s+that|i\s+was\s+wrong|disregard|ignore\s+(?:that|the\s+above|this)|other\s+way\s+a?round|"
    r"the\s+opposite|changed\s+my\s+mind|(?:i\s+am|i'm)\s+not\s+sure|just\s+kidding|"
    r"let\s+me\s+(?:reconsider|(?:check|think|look)(?:\s+\w+){0,2}\s+again)|(?:it|that)(?:\s+is|'s)\s+the\s+other\s+one|too\s+(?:low|high|kind|harsh)|it\s+deserves|i\s+ignore\s+(?:it|that|this))\b"
    rf"|\b(?:that|this|it)\s+is\s+what\s+{LABEL}|\b(?:line|sentence|verdict)\s+is\s+(?:from|by|of)\s+{LABEL}"
    r"|\bthe\s+other(?:\s+(?:one|response|answer))?\s+(?:is|wins)\s*(?:better|best|superior|stronger|preferable|$|[.,;!])",
    re.IGNORECASE,
)
_WITHDRAWN = re.compile(  # a whole sentence
    r"(?:(?:wait|hm+|oh|actually|sorry)\W+)+(?:no|not|wrong|(?:that|this)(?:\s+is|'s)\s+(?:not\s+right|not\s+true|wrong|incorrect|a\s+mistake))?\W*|(?:no|not|wrong|false)\W*"
    r"|(?:that|this|which)(?:\s+is|'s)\s+(?:not\s+right|not\s+true|wrong|incorrect|false|a\s+mistake)\W*",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”|«[^»\n]*»')
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|;\s+")
_REASON = re.compile(r"\b(?:because|since|as\s+it)\b", re.IGNORECASE)
_SECOND = re.compile(r"2|second|\btwo\b", re.IGNORECASE)
_ANY_LABEL = re.compile(LABEL, re.IGNORECASE)


def claimed(text: str) -> str | None:
    """The label, "1" or "2", that the sentences of a text call the better one, and nothing in it
    gainsays; else None.
    """
    sentences = _sentences(text)
    labels = {label for sentence in sentences if (label := _claim(sentence)) is not None}
    if len(labels) != 1:
        return None
    [label] = labels
    return None if _UNDECIDED.search(text) or takes_back(text, label) else label


def takes_back(text: str, label: str) -> bool:
    """Whether a text that stands beside the verdict `label` ("1", "2", or "tie") names another."""
    sentences = _sentences(text)
    if withdraws(text):
        return True
    if label == "tie":
        return any(_NAMED.search(sentence) for sentence in sentences)
    revised = any(
        _REVISED.search(sentence)
        and (_UNDECIDED.search(sentence) or _other(label) in _labels(_ANY_LABEL, sentence))
        for sentence in sentences
    )
    return revised or _names_other(sentences, label) or _faults(sentences, label)


def withdraws(text: str) -> bool:
    """Whether a text behind a verdict, of whatever kind, says that it does not stand."""
    return bool(_RETRACTED.search(text)) or any(
        _WITHDRAWN.fullmatch(sentence) for sentence in _sentences(text)
    )


def label_of(text: str) -> str:
    """ "1" or "2", of a text that names one response."""
    return "2" if _SECOND.search(text) else "1"


def _claim(sentence: str) -> str | None:
    found = _CLAIM.match(sentence)
    if found is None:
        return None
    start = next(found.start(name) for name in ("a", "b", "c") if found[name])
    before, after = sentence[:start], _REASON.split(sentence[start:])[0]
    if (
        _CONDITION.search(before)
        or _CONDITION.search(after)
        or _LIMITED.search(after)
        or _REPORTED.search(re.sub(r"I(?:\s+would|'d)\s+say", "", before))
    ):
        return None
    return label_of(next(found[name] for name in ("a", "b", "c") if found[name]))


def _names_other(sentences: list[str], label: str) -> bool:
    return any(_other(label) in _labels(_NAMED, sentence) for sentence in sentences)


def _faults(sentences: list[str], label: str) -> bool:
    return any(label in _labels(_FAULTED, sentence) for sentence in sentences)


def _labels(pattern: re.Pattern[str], sentence: str) -> set[str]:
    return {
        label_of(next((group for group in found.groups() if group), found[0]))
        for found in pattern.finditer(sentence)
    }


def _other(label: str) -> str:
    return "2" if label == "1" else "1"


def _sentences(text: str) -> list[str]:
    """Without quotations, and without questions."""
    parts = [part.strip() for part in _SENTENCE.split(_QUOTED.sub('""', text))]
    return [part for part in parts if part and not part.endswith("?")]
