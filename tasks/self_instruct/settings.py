"""How a policy makes new prompts out of those it is shown (Self-Instruct, Wang et al. 2023, arXiv
2212.10560).
"""

from pydantic import BaseModel, ConfigDict, Field

from dapflow.tasks.sampling.engines.base import Sampling


class SelfInstruct(BaseModel):
    """What the policy is shown, and which of its prompts are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    seeds: str | None = Field(
        default=None,
        description=(
            "`shipped` (180 tasks), or a .jsonl or .parquet file with `prompt`; left out: the "
            "training prompts"
        ),
    )
    from_seeds: int = Field(default=6, ge=1, description="seeds among the prompts that it is shown")
    from_machine: int = Field(
        default=2,
        ge=0,
        description="prompts of its own among them, as soon as there are some; seeds until then",
    )
    novelty: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="a prompt whose ROUGE-L with a seed, an earlier or a held-out one is higher is left out",
    )
    per_round: int = Field(
        default=16,
        ge=1,
        description="times it is asked before its prompts join those that it can be shown",
    )
    patience: int = Field(
        default=3,
        ge=1,
        description="rounds in a row without a new prompt after which it is not asked again",
    )
    sampling: Sampling = Field(
        default=Sampling(n=1, temperature=0.7, top_p=0.5, max_tokens=1024, stop=("\n16.",)),
        description="a reply that is cut off at `max_tokens` is not read",
    )
