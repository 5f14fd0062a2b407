"""The kind `llm`: a language model behind an OpenAI-compatible server judges, asked in words.

    LLM(endpoint=Endpoint(model="gpt-4.1-mini"), budget=Budget(max_cost_usd=5))
Test: pytest tests/tasks/judging/judges/test_llm.py
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal, Self

from pydantic import model_validator

from dapflow.tasks.judging.asking.ask import LLMJudge, llm_judge
from dapflow.tasks.judging.asking.settings import LLMSettings
from dapflow.tasks.judging.kinds import spec_of
from dapflow.tasks.judging.material import Material
from dapflow.tasks.judging.spec import JudgeSpec, Opening
from dapflow.tasks.judging.work import of_llm
from dapflow.tasks.step import Work


class LLM(LLMSettings):
    """A judge behind an OpenAI-compatible server."""

    asked_as_a_whole: ClassVar[bool] = True
    kind: Literal["llm"] = "llm"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.endpoint.model:
            raise ValueError(
                "an LLM judge needs endpoint.model, the name that the server knows the model by"
            )
        if self.endpoint.api != "chat":
            raise ValueError("an LLM judge is asked by chat: leave endpoint.api as it is")
        return self

    def __str__(self) -> str:
        return self.endpoint.model

    @property
    def full_name(self) -> str:
        """The model, and in which words it is asked."""
        return f"{self} {self.template_name}"

    def check(self) -> None:
        """Raise UserError for a template that does not fit, or a limit in dollars without a
        price.
        """
        super().check()
        self.priced()

    def on_toy(self) -> JudgeSpec:
        """A program, which asks nobody."""
        return spec_of("shorter")

    def work(self, material: Material) -> Work:
        """Requests to the server."""
        return of_llm(self, material)

    @contextmanager
    def open(self, opening: Opening) -> Iterator[LLMJudge]:
        """The server, for as long as the block lasts."""
        with llm_judge(opening.lake, opening.version, self, opening.say) as judge:
            yield judge
