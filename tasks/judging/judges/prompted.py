"""What a language model is asked when it judges, whoever it is: mode, words, samples. A value, like
every choice of a recipe.

llm.py: a model behind a server; policy.py: the policy that is being trained.
Test: pytest tests/tasks/judging/judges/test_llm.py
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from dapflow.tasks.judging.judges.templates import check_places, template_digest, template_text
from dapflow.tasks.judging.spec import JudgeSpec

# for an answer that is to be one label: a model that puts a sentence around it comes to the
# sentence's end
_LABEL_TOKENS = 64
_MORE, _LEAST_MORE = (
    4,
    1024,
)  # times the room of before, for an answer that was cut off: one that thinks takes hundreds of tokens
_EARLIER_LABEL_TOKENS = 8  # under the template's first version
_INSTRUCTION = "instruction-v1"
_SHIPPED = {
    "pairwise": "pairwise-v2",
    "additive": "additive-v1",
    "ten": "ten-v1",
    "rubric": "rubric-v1",
}


class Prompted(JudgeSpec):
    """A judge that is asked in words. Two answers are always compared in both orders."""

    mode: Literal["pairwise", "additive", "ten", "rubric"] = Field(
        default="pairwise",
        description="`pairwise`: compares two answers; `additive`: five points one by one (Self-Rewarding); `ten`: 1 to 10; `rubric`: "
        "1 to 10 on each of `criteria`",
    )
    instruction: str | None = Field(
        default=None, description="what the people you judge for prefer, in plain words"
    )
    template: str | None = Field(
        default=None, description="a shipped template or a text file, in place of the mode's own"
    )
    reasoning: bool = Field(
        default=False,
        description="pairwise: reasons before the verdict (scores always come with reasons)",
    )
    criteria: dict[str, float] = Field(
        default={}, description="rubric: weight by name, for example {correct: 2, brief: 1}"
    )
    samples: int = Field(
        default=1,
        ge=1,
        description="answers to each question, averaged over those that can be read",
    )
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(
        default=400,
        ge=1,
        description="of an answer with reasons; one that is cut off is never read, and asked for once more with more room",
    )

    @model_validator(mode="after")
    def _check_words(self) -> Self:
        if self.samples > 1 and not self.temperature:
            raise ValueError(
                f"samples: {self.samples} answers at temperature 0 are the same one: set "
                "temperature, for example 0.7"
            )
        if (self.mode == "rubric") != bool(self.criteria):
            raise ValueError(
                "criteria: goes with mode rubric, which needs some, for example {correct: 2, "
                "brief: 1}"
            )
        if self.criteria and not all(weight > 0 for weight in self.criteria.values()):
            raise ValueError("criteria: every weight must be greater than 0")
        if self.reasoning and not self.compares:
            raise ValueError("reasoning: goes with mode pairwise; scores always come with reasons")
        return self

    @property
    def compares(self) -> bool:
        """Whether it compares two answers, rather than score one."""
        return self.mode == "pairwise"

    @property
    def surely_compares(self) -> bool:
        """Its mode says so."""
        return self.compares

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        return (0.0, 5.0) if self.mode == "additive" else (1.0, 10.0)

    @property
    def calls_per_verdict(self) -> int:
        """How many requests a verdict takes."""
        return self.samples * (2 if self.compares else 1)

    @property
    def answer_tokens(self) -> int:
        """The longest answer."""
        return (
            min(self.max_tokens, _LABEL_TOKENS)
            if self.compares and not self.reasoning
            else self.max_tokens
        )

    @property
    def more_tokens(self) -> int:
        """The longest answer to a question that is asked again, since its first answer was cut off."""
        return max(_MORE * self.answer_tokens, _LEAST_MORE)

    @property
    def template_name(self) -> str:
        """The template, by name or file."""
        return self.template or ("pairwise-reasoned-v2" if self.reasoning else _SHIPPED[self.mode])

    @property
    def earlier(self) -> Self | None:
        """The same judge as it was asked before the shipped template's present version: what it
        answered then is paid, and may be read.
        """
        if self.template is not None or not self.compares:
            return None
        return self.model_copy(
            update={"template": self.template_name.replace("-v2", "-v1")}
            | (
                {}
                if self.reasoning
                else {"max_tokens": min(self.max_tokens, _EARLIER_LABEL_TOKENS)}
            )
        )

    def prompt_template(self) -> str:
        """The template with the preference in plain words before it. Raises UserError for one that
        is not there or does not fit.
        """
        text = template_text(self.template_name)
        places = {"prompt", "first", "second"} if self.compares else {"prompt", "completion"}
        check_places(
            self.template_name, text, places | ({"criteria"} if self.mode == "rubric" else set())
        )
        return f"{template_text(_INSTRUCTION)}{text}" if self.instruction else text

    def check(self) -> None:
        """Raise UserError for a template that is not there or does not fit."""
        self.prompt_template()

    def content(self) -> dict[str, str]:
        """The text of the template is part of the version of whatever it judges."""
        return super().content() | {"template": template_digest(self.prompt_template())}
