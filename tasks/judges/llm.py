"""An LLM as the judge: which model, what it is asked, and what that may cost. A value, like every choice of a recipe.

    LLM(endpoint=Endpoint(model="gpt-4.1-mini"), instruction="of two equally good answers the shorter one", budget=Budget(max_cost_usd=5))
Test: pytest tests/tasks/judges/test_llm.py
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from storage import UserError
from tasks.engines.endpoint import Endpoint
from tasks.judges.budget import Budget
from tasks.judges.prices import Priced, price_of
from tasks.judges.templates import check_places, template_digest, template_text

_LABEL_TOKENS = 8  # as many as an answer that is one label may take, with what a model may put around it
_INSTRUCTION = "instruction-v1"


class LLM(BaseModel):
    """A judge behind an OpenAI-compatible server. Two answers are always compared in both orders."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    MACHINE: ClassVar[dict[str, Any]] = {  # what decides nothing of a verdict; of the template it is the text that does (`content`)
        "endpoint": Endpoint.MACHINE, "prices": True, "template": True, "max_invalid_rate": True,
        "batch": True,
    }  # fmt: skip
    endpoint: Endpoint = Endpoint()
    mode: Literal["pairwise", "additive", "ten", "rubric"] = Field(
        default="pairwise",
        description="`pairwise`: compares two answers; `additive`: five points one by one (Self-Rewarding); `ten`: 1 to 10; `rubric`: "
        "1 to 10 on each of `criteria`",
    )
    instruction: str | None = Field(default=None, description="what the people you judge for prefer, in plain words")
    template: str | None = Field(default=None, description="a shipped template or a text file, in place of the mode's own")
    reasoning: bool = Field(default=False, description="pairwise: reasons before the verdict (scores always come with reasons)")
    logprobs: bool = Field(default=True, description="pairwise: use the labels' log-probabilities where the server gives them")
    criteria: dict[str, float] = Field(default={}, description="rubric: weight by name, for example {correct: 2, brief: 1}")
    samples: int = Field(default=1, ge=1, description="answers to each question, averaged over those that can be read")
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=400, ge=1, description="of an answer with reasons")
    max_invalid_rate: float = Field(default=0.2, ge=0, le=1, description="the run stops when more of the verdicts cannot be used")
    batch: bool = Field(default=False, description="asks by the provider's batch interface: half the price, within a day")
    budget: Budget = Budget()
    prices: str | None = Field(default=None, description="a price list of your own (tasks/judges/prices.toml shows the form)")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.endpoint.model:
            raise ValueError("an LLM judge needs endpoint.model, the name that the server knows the model by")
        if self.endpoint.api != "chat":
            raise ValueError("an LLM judge is asked by chat: leave endpoint.api as it is")
        if self.samples > 1 and not self.temperature:
            raise ValueError(f"samples: {self.samples} answers at temperature 0 are the same one: set temperature, for example 0.7")
        if (self.mode == "rubric") != bool(self.criteria):
            raise ValueError("criteria: goes with mode rubric, which needs some, for example {correct: 2, brief: 1}")
        if self.criteria and not all(weight > 0 for weight in self.criteria.values()):
            raise ValueError("criteria: every weight must be greater than 0")
        if self.reasoning and not self.compares:
            raise ValueError("reasoning: goes with mode pairwise; scores always come with reasons")
        return self

    def __str__(self) -> str:
        return self.endpoint.model

    @property
    def compares(self) -> bool:
        """Whether it compares two answers, rather than score one."""
        return self.mode == "pairwise"

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
        return min(self.max_tokens, _LABEL_TOKENS) if self.compares and not self.reasoning else self.max_tokens

    @property
    def template_name(self) -> str:
        """The template, by name or file."""
        return self.template or ("pairwise-reasoned-v1" if self.reasoning else f"{self.mode}-v1")

    def prompt_template(self) -> str:
        """The template with the preference in plain words before it. Raises UserError for one that is not there or does not fit."""
        text = template_text(self.template_name)
        places = {"prompt", "first", "second"} if self.compares else {"prompt", "completion"}
        check_places(self.template_name, text, places | ({"criteria"} if self.mode == "rubric" else set()))
        return f"{template_text(_INSTRUCTION)}{text}" if self.instruction else text

    def content(self) -> dict[str, str]:
        """What the settings stand for beyond themselves: part of the version of whatever it judges."""
        return {"template": template_digest(self.prompt_template())}

    def priced(self) -> Priced:
        """Its price. Raises UserError when dollars are limited and nobody knows the price."""
        found = price_of(self.endpoint, self.prices)
        if found.price is None and self.budget.max_cost_usd is not None:
            raise UserError(
                f"Nobody knows what {self.endpoint.model} costs, so max_cost_usd cannot be kept: name its price in a file of your own "
                "(judge.prices=my-prices.toml), or limit max_calls or max_tokens instead."
            )
        if self.batch and found.price is not None:
            return Priced(price=found.price.halved(), source=f"{found.source}, half of it for batches")
        return found
