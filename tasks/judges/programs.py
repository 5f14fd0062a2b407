"""Judges that are plain functions of the text: the trivial players beside the reward model."""

from collections.abc import Callable, Iterator, Sequence

from storage import UserError
from tasks.judges.base import Question, Verdict

Program = Callable[[str, str], float]


def shorter(prompt: str, completion: str) -> float:
    """Minus the number of words: the shorter of two answers wins."""
    return -float(len(completion.split()))


def on_topic(prompt: str, completion: str) -> float:
    """Share of the prompt's longer words that the completion takes up, in [0, 1]."""
    wanted = {word for word in prompt.lower().split() if len(word) > 3}
    return len(wanted & set(completion.lower().split())) / max(len(wanted), 1)


PROGRAMS: dict[str, Program] = {"shorter": shorter, "on-topic": on_topic}


class ProgramJudge:
    """Scores with a named program. An empty completion is invalid, not a score of zero."""

    together = False

    def __init__(self, name: str) -> None:
        if name not in PROGRAMS:
            raise UserError(f"There is no judge `{name}`: the programs are {', '.join(sorted(PROGRAMS))}.")
        self.name = name
        self._program = PROGRAMS[name]

    def judge(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> Iterator[Verdict]:
        """One verdict per question, in order."""
        for question in questions:
            if question.completion.strip():
                yield Verdict(outcome="scored", score=self._program(question.prompt, question.completion))
            else:
                yield Verdict(outcome="invalid", note="empty completion")
            if on_rows:
                on_rows(1)
