"""Instructions that a program can verify ("in two sentences", "without a comma"): how many of them
a policy follows.

    load_instructions(source, digest, count)            ->  prompts
    check_instructions(policy, prompts, before, after)  ->  metrics: what both policies follow
A figure is the share of constraints that are followed, or of prompts of which all are. The shipped
set is tasks/prompts/data/instructions.jsonl, one {"prompt": ..., "constraints": [...]} a line;
tasks/judging/constraints.py has the rules. Test: pytest tests/tasks/evaluation/test_instructions.py
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from dapflow.storage import DatasetRef, ModelRef, UserError
from dapflow.storage.rows import CompletionRow
from dapflow.tasks.figures import Figure, mean, paired, rows_of
from dapflow.tasks.judging.constraints import follows
from dapflow.tasks.prompts.constraints import Constraint, of_text
from dapflow.tasks.prompts.load import prompt_tags, prompt_text
from dapflow.tasks.prompts.row import prompt_row, text_digest
from dapflow.tasks.prompts.sources import Record, read_source
from dapflow.tasks.sampling.engines.base import Sampling
from dapflow.tasks.step import Out, step

INSTRUCTIONS_FILE = "instructions.jsonl"
_NONE = "no instruction was answered"


class Instructions(BaseModel):
    """Prompts with constraints that the policy before and the new one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    source: str | None = Field(
        default="shipped",
        description="`shipped`, or a .jsonl or .parquet file with `prompt` and `constraints`; "
        "empty: none",
    )
    prompts: int = Field(
        default=64, ge=0, description="how many of them, those with the smallest digests; 0: none"
    )
    max_tokens: int = Field(default=96, ge=1, description="of an answer")

    def sampling(self, chat_template: str | None) -> Sampling:
        """The likeliest answer, without a system prompt: what is measured is the policy, not
        chance.
        """
        return Sampling(
            n=1, temperature=0.0, max_tokens=self.max_tokens, chat_template=chat_template
        )


@step(
    "prompts",
    title="load instructions",
    expects=lambda source, count, **_: min(
        count, len({prompt_text(one) for one in read_source(source, INSTRUCTIONS_FILE)})
    ),
    activity="loading",
)
def load_instructions(out: Out, source: str, digest: str, count: int) -> None:
    """The prompts with the smallest digests, `count` of them, each with its constraints. `digest`:
    of the source's content. Raises UserError, naming the line, for a prompt without constraints.
    """
    tags = {
        prompt_text(record): placed_constraints(record)
        for record in reversed(read_source(source, INSTRUCTIONS_FILE))
    }
    out.write(
        0,
        [
            prompt_row(out.row_id(n), text, place, split="held_out") | {"constraints": constraints}
            for n, text in enumerate(sorted(tags, key=text_digest)[:count])
            for place, constraints in [tags[text]]
        ],
    )


def placed_constraints(record: Record) -> tuple[str, str]:
    """Where it stands, and its constraints."""
    constraints = prompt_tags(record)["constraints"]
    if constraints is None:
        raise UserError(
            f'{record.place}: there are no `constraints`, such as [{{"rule": "words", "at_most": '
            "20}]."
        )
    return record.place, constraints


@step("metrics", title="check instructions", expects=lambda **_: 6, activity="measuring")
def check_instructions(
    out: Out,
    policy: ModelRef,
    prompts: DatasetRef,
    before: DatasetRef,
    after: DatasetRef,
    seed: int,
) -> None:
    """What each side follows, and the difference on the same prompts: the share of the constraints,
    and the share of the prompts of which all are followed.
    """
    constraints = {
        row["id"]: of_text(row["constraints"])
        for row in out.lake.prompts(prompts)
        if row["constraints"] is not None
    }
    old, new = (followed(out.lake.completions(ref), constraints) for ref in (before, after))
    figures = [
        *figures_of("instructions_followed", old, new, seed),
        *figures_of("instructions_whole", wholly(old), wholly(new), seed),
    ]
    out.write(0, list(rows_of(figures, policy.version, out.row_id)))


def followed(
    completions: Sequence[CompletionRow], constraints: Mapping[str, Sequence[Constraint]]
) -> dict[str, float]:
    """For each prompt the share of its constraints that its answer follows; what was refused before
    sampling is no answer. constraints: by the prompt's id.
    """
    return {
        row["prompt_id"]: follows(constraints[row["prompt_id"]], row["text"])
        for row in completions
        if row["finish_reason"] != "refused"
    }


def wholly(shares: Mapping[str, float]) -> dict[str, float]:
    """For each prompt 1 where all is followed, else 0."""
    return {prompt: float(share == 1) for prompt, share in shares.items()}


def figures_of(
    name: str, old: Mapping[str, float], new: Mapping[str, float], seed: int
) -> list[Figure]:
    return [
        mean(f"{name}_before", old, seed, _NONE, bounded=True),
        mean(f"{name}_after", new, seed, _NONE, bounded=True),
        paired(f"{name}_change", old, new, seed, _NONE, bounded=True),
    ]
