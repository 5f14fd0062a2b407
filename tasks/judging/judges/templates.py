"""A judge's prompts: files in prompts/ by name and version, or a file of one's own, and the
material in its place in them.

Test: pytest tests/tasks/judging/judges/test_templates.py
"""

import hashlib
import re
from functools import cache
from pathlib import Path

from dapflow.storage import UserError

_FOLDER = Path(__file__).parent / "prompts"
_PLACE = re.compile(r"\{(\w+)\}")
_TAG = re.compile(r"</?\s*(\w+)\s*>")
# What the chat templates of the field mark turns with: a server would take it for the end of its
# user's turn.
_CONTROL = re.compile(
    r"<(?=[|｜])|(?<=[|｜])>|\[(?=/?INST\])|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn)>)|<(?=</?SYS>>)"
)


def template_text(name: str) -> str:
    """The text of a shipped template (`pairwise-v1`) or of a file. Raises UserError that lists the
    names.
    """
    shipped = _FOLDER / f"{name}.txt"
    path = shipped if "/" not in name and shipped.is_file() else Path(name).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(sorted(one.stem for one in _FOLDER.glob("*.txt")))
        raise UserError(
            f"There is no judge's template `{name}`: name a text file, or one of {names}."
        ) from error


def check_places(name: str, text: str, places: set[str]) -> None:
    """Raise UserError unless the template has exactly these places for material."""
    if (found := set(_PLACE.findall(text))) != places:
        wanted = " and ".join(f"{{{place}}}" for place in sorted(places))
        raise UserError(
            f"The judge's template `{name}` has {_listed(found)}: for this mode it needs "
            f"{wanted}, each where it belongs."
        )


def template_digest(*texts: str) -> str:
    """Recognises the text of templates across files and versions of the software."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def fill(template: str, **material: str) -> str:
    """The judge's prompt. Tags that the template uses, and what marks the turns of a chat, are
    taken out of the material or broken up, so that it cannot leave its place; braces in it are only
    text."""
    tags = _tags(template)
    return _PLACE.sub(lambda place: _harmless(material[place[1]], tags), template)


@cache
def _tags(template: str) -> re.Pattern[str] | None:
    names = sorted(set(_TAG.findall(template)))
    return re.compile(rf"<\s*/?\s*(?:{'|'.join(names)})\b[^<>]*>", re.IGNORECASE) if names else None


def _harmless(text: str, tags: re.Pattern[str] | None) -> str:
    while tags is not None and tags.search(text):  # taking one out may join the halves of another
        text = tags.sub("", text)
    return _CONTROL.sub(lambda sign: f"{sign[0]} " if sign[0] != ">" else " >", text)


def _listed(places: set[str]) -> str:
    return (
        "places for " + " and ".join(f"{{{place}}}" for place in sorted(places))
        if places
        else "no place for the material"
    )
