"""What a judge is asked for, at most, as a plan knows it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dapflow.storage import DatasetRef, Lake
from dapflow.tasks.judging.judges.base import Match, Question
from dapflow.tasks.step import contents_of


def nothing(lake: Lake) -> Iterable[Question]:
    """What is asked about completions that have yet to be sampled."""
    del lake
    return ()


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is judged.

    verdicts: how many are asked for.
    prompts: how many prompts they are about, of `prompt_tokens` each.
    answer_tokens: of the longest answer.
    read: what the questions are made of, all of it in the lake.
    questions: what is asked about completions, read in a lake.
    matches: what is asked about two completions each, in place of questions.
    baseline: whether each completion is compared with a baseline answer.
    """

    verdicts: int
    prompts: int
    prompt_tokens: float
    answer_tokens: float
    read: tuple[DatasetRef, ...] = ()
    questions: Callable[[Lake], Iterable[Question]] = nothing
    matches: Callable[[Lake], Iterable[Match]] | None = None
    baseline: bool = False

    @classmethod
    def of(cls, verdicts: int, prompts: DatasetRef, *answers: DatasetRef) -> "Material":
        """Of so many verdicts on answers to prompts: those of one side, or of both."""
        contents = contents_of(prompts)
        return cls(
            verdicts=verdicts,
            prompts=contents.rows,
            prompt_tokens=contents.prompt_tokens,
            answer_tokens=max(contents_of(ref).answer_tokens for ref in answers),
            read=(prompts, *answers),
        )

    def is_in(self, lake: Lake) -> bool:
        """Whether the questions can be read, rather than still have to be made."""
        return all(lake.find(ref.version) is not None for ref in self.read)
