"""The usual forms of preference data, read record by record into the columns of `pairs`.

pairs            `prompt`, `chosen`, `rejected`, as text or as messages; or whole conversations `chosen` and `rejected`
hh               transcripts `chosen` and `rejected` ("\\n\\nHuman: ...\\n\\nAssistant: ...") that differ in the last answer
ultrafeedback    `instruction` and `completions` with `response` and `overall_score`: the best against the worst
A conversation of several turns becomes one prompt, as a transcript.
"""

from collections.abc import Mapping
from typing import Any, Literal

from storage import UserError
from tasks.prompts import prompt_text
from tasks.sources import Record

Format = Literal["auto", "pairs", "hh", "ultrafeedback"]
RATINGS = (
    "significantly",
    "better",
    "slightly",
    "negligible",
)  # how much better the chosen one is (Llama 2, arXiv 2307.09288, section 3.2.1)
_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


def preference(record: Record, form: Format = "auto") -> dict[str, Any]:
    """The columns of `pairs` that a record fills. Raises UserError that names the record when it is not of that form."""
    form = _form(record) if form == "auto" else form
    texts = {"pairs": _plain, "hh": _transcripts, "ultrafeedback": _scored}[form](record)
    for name in ("prompt", "chosen", "rejected"):
        try:
            texts[name].encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{record.place}: `{name}` holds half a character (\\u{ord(error.object[error.start]):04x}): remove it."
            ) from error
    given = record.fields.get("dropped")
    dropped = given if isinstance(given, str) else "identical" if texts["chosen"] == texts["rejected"] else None
    return {"source": record.place, "rating": _rating(record), "dropped": dropped, **texts}


def _rating(record: Record) -> str | None:
    rating = record.fields.get("rating")
    if rating is not None and rating not in RATINGS:
        raise UserError(f"{record.place}: `rating` must be one of {', '.join(RATINGS)}, not {rating!r}.")
    return rating


def _form(record: Record) -> Format:
    if isinstance(record.fields.get("completions"), list):
        return "ultrafeedback"
    chosen = record.fields.get("chosen")
    return "hh" if isinstance(chosen, str) and chosen.startswith(_HUMAN) and "prompt" not in record.fields else "pairs"


def _plain(record: Record) -> dict[str, Any]:
    if not any(isinstance(record.fields.get(name), list) for name in ("prompt", "chosen", "rejected")):
        given = {name: record.fields.get(name) for name in ("prompt", "chosen", "rejected")}
        texts = {name: text for name, text in given.items() if isinstance(text, str)}
        if len(texts) == len(given) and not all(text.strip() for text in texts.values()):
            return texts | {"dropped": "empty"}
        return {"prompt": prompt_text(record), "chosen": record.text("chosen"), "rejected": record.text("rejected")} | _margin(record)
    chosen, rejected = _messages(record, "chosen"), _messages(record, "rejected")
    if "prompt" in record.fields:
        prompt = _messages(record, "prompt") if isinstance(record.fields["prompt"], list) else [("user", record.text("prompt"))]
    else:
        same = [one == other for one, other in zip(chosen, rejected, strict=False)]  # whole conversations: what both begin with
        prompt = chosen[: same.index(False) if False in same else len(same)]
    if chosen[: len(prompt)] == prompt and rejected[: len(prompt)] == prompt:
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    answers = {"chosen": chosen, "rejected": rejected}
    if not prompt or any([role for role, _ in turns] != ["assistant"] for turns in answers.values()):
        raise UserError(
            f"{record.place}: `chosen` and `rejected` must be the same conversation with one last message of the assistant each."
        )
    return {"prompt": _conversation(prompt), **{name: turns[0][1] for name, turns in answers.items()}} | _margin(record)


def _transcripts(record: Record) -> dict[str, Any]:
    (before, chosen), (other, rejected) = (record.text(name).rpartition(_ASSISTANT)[::2] for name in ("chosen", "rejected"))
    if not before.startswith(_HUMAN):
        raise UserError(f"{record.place}: `chosen` must be a transcript that begins with `Human:` and ends with an answer of `Assistant:`.")
    turns = [
        ("user" if place % 2 == 0 else "assistant", text.strip())
        for place, text in enumerate(before.removeprefix(_HUMAN).replace(_ASSISTANT, _HUMAN).split(_HUMAN))
    ]
    dropped = "different_prompts" if before != other else "empty" if not (chosen.strip() and rejected.strip()) else None
    texts = {"prompt": _conversation(turns), "chosen": chosen.strip(), "rejected": rejected.strip()}
    return texts | ({"dropped": dropped} if dropped else {})


def _scored(record: Record) -> dict[str, Any]:
    prompt = record.text("instruction", "prompt")
    answers = []
    for one in record.fields["completions"]:
        text = next((one[name] for name in ("response", "text", "content", "completion") if isinstance(one.get(name), str)), None)
        score = next((one[name] for name in ("overall_score", "score", "fine-grained_score") if one.get(name) is not None), None)
        if text is not None and isinstance(score, int | float):
            answers.append((float(score), text))
    if len(answers) < 2:
        raise UserError(f"{record.place}: `completions` needs at least two with `response` and `overall_score`.")
    best, worst = max(answers, key=lambda one: one[0]), min(answers, key=lambda one: one[0])
    texts = {"prompt": prompt, "chosen": best[1], "rejected": worst[1], "margin": best[0] - worst[0]}
    return texts | ({"dropped": "tie"} if best[0] == worst[0] else {})


def _messages(record: Record, name: str) -> list[tuple[str, str]]:
    value = record.fields.get(name)
    if isinstance(value, str):
        return [("assistant", value)]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) and isinstance(one.get("content"), str) for one in value):
        raise UserError(f"{record.place}: `{name}` must be text or a list of messages with `role` and `content`.")
    return [(str(one.get("role")), one["content"]) for one in value]


def _margin(record: Record) -> dict[str, float]:
    scores = [record.fields.get(name) for name in ("score_chosen", "score_rejected")]
    if all(isinstance(score, int | float) for score in scores):
        return {"margin": float(scores[0]) - float(scores[1])}  # type: ignore[arg-type]
    margin = record.fields.get("margin")
    return {"margin": float(margin)} if isinstance(margin, int | float) else {}


def _conversation(turns: list[tuple[str, str]]) -> str:
    """One user turn as it is; several as a transcript."""
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}: {text}" for role, text in turns)
