"""What an LLM judge is asked by: which model, in which words, and what that may cost.

The kind itself is judges/llm.py.
Test: pytest tests/tasks/judging/judges/test_llm.py
"""

from typing import Any, ClassVar

from pydantic import Field

from dapflow.storage import UserError
from dapflow.tasks.judging.asking.budget import Budget
from dapflow.tasks.judging.asking.prices import Priced, price_of
from dapflow.tasks.judging.judges.prompted import Prompted
from dapflow.tasks.servers.client import Endpoint


class LLMSettings(Prompted):
    """Of a judge behind an OpenAI-compatible server."""

    # what decides nothing of a verdict; of the template it is the text that does (`content`)
    MACHINE: ClassVar[dict[str, Any]] = {
        "endpoint": Endpoint.MACHINE,
        "prices": True,
        "template": True,
        "max_invalid_rate": True,
        "batch": True,
    }
    endpoint: Endpoint = Endpoint()
    logprobs: bool = Field(
        default=True,
        description="pairwise: use the labels' log-probabilities where the server gives them",
    )
    max_invalid_rate: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="the run stops when more of the verdicts cannot be used",
    )
    batch: bool = Field(
        default=False,
        description="asks by the provider's batch interface: half the price, within a day",
    )
    budget: Budget = Budget()
    prices: str | None = Field(
        default=None,
        description="a price list of your own (tasks/judging/asking/prices.toml shows the form)",
    )

    def priced(self) -> Priced:
        """Its price. Raises UserError when dollars are limited and nobody knows the price."""
        found = price_of(self.endpoint, self.prices)
        if found.price is None and self.budget.max_cost_usd is not None:
            raise UserError(
                f"Nobody knows what {self.endpoint.model} costs, so max_cost_usd cannot be kept: "
                "name its price in a file of your own "
                "(judge.prices=my-prices.toml), or limit max_calls or max_tokens instead."
            )
        if self.batch and found.price is not None:
            return Priced(
                price=found.price.halved(), source=f"{found.source}, half of it for batches"
            )
        return found
