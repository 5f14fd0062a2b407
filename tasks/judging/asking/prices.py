"""What a call costs: prices.toml, or a file of the user's, in dollars per million tokens.

Test: pytest tests/tasks/judging/asking/test_budget.py
"""

import ipaddress
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dapflow.storage import UserError
from dapflow.tasks.servers.client import Endpoint

SHIPPED = Path(__file__).parent / "prices.toml"
_MILLION = 1e6


class Price(BaseModel):
    """Of a million tokens, in dollars."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    usd_in: float = Field(alias="in", ge=0)
    usd_out: float = Field(alias="out", ge=0)

    def of(self, tokens_in: int, tokens_out: int) -> float:
        """What so many tokens cost."""
        return (tokens_in * self.usd_in + tokens_out * self.usd_out) / _MILLION

    def halved(self) -> "Price":
        """What the same tokens cost in a batch."""
        return Price(**{"in": self.usd_in / 2, "out": self.usd_out / 2})


@dataclass(frozen=True, kw_only=True)
class Priced:
    """The price of a model, and where it is from; None where nobody knows it."""

    price: Price | None
    source: str


def price_of(endpoint: Endpoint, own: str | None) -> Priced:
    """The price of the endpoint's model. A model without one is free where it is served on this
    machine.

    Raises UserError for a file that cannot be read.
    """
    for path in (*([Path(own).expanduser()] if own else []), SHIPPED):
        date, models = _read(path)
        if endpoint.model in models:
            return Priced(price=models[endpoint.model], source=f"{path.name} of {date}")
    if _is_here(endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or ""):
        return Priced(price=Price(**{"in": 0.0, "out": 0.0}), source="this machine, free")
    return Priced(price=None, source="no price list")


def _read(path: Path) -> tuple[Any, dict[str, Price]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return content["date"], {
            name: Price.model_validate(value) for name, value in content["models"].items()
        }
    except (
        OSError,
        UnicodeDecodeError,
        tomllib.TOMLDecodeError,
        KeyError,
        AttributeError,
        ValidationError,
    ) as error:
        example = (
            'date = 2026-06-21, then under [models] lines such as "gpt-4o" = { in = 2.50, out = '
            "10.00 }"
        )
        raise UserError(
            f"The price list {path} cannot be read: it is TOML with {example}."
        ) from error


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
