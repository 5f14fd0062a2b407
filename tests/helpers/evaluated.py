"""Lakes with runs that were measured, of any size: what `dapflow report` and `compare-runs` read.
The new policy wins as often as it is told.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa

from dapflow.storage import Lake, Ref
from dapflow.storage.runs import record_run
from dapflow.tasks.statistics import bootstrap_share
from tests.helpers.lakes import Made, ids, initial_policy, iteration, named, write

HOSTILE = "</style></script><script>alert('told')</script><img src=x onerror=alert(1)> & \"quoted\" | piped"


def run(
    lake: Lake,
    name: str,
    *,
    number: int = 1,
    policy: Ref | None = None,
    prompts: int = 40,
    wins: float = 0.5,
    longer: int = 0,
    text: str = "",
    settings: dict[str, Any] | None = None,
    more: dict[str, float] | None = None,
    compared: bool = False,
) -> Made:
    """A run `name` of one iteration: of `prompts` held-out prompts the first share `wins` is won by
    one point, the rest lost by one.

    longer: tokens that the new answers have more; text: stands in every answer and prompt; more:
    further metrics; compared: by a judge that sees both answers, and not by one that scores each.
    """
    with record_run(
        lake,
        name,
        "rso",
        settings or {"loss": {"name": "sigmoid_norm", "beta": 0.1}},
        "dapflow run rso --toy",
    ) as record:
        made = iteration(lake, number, policy or initial_policy(lake))
        made |= _evaluated(lake, name, made, prompts, wins, longer, text, more or {}, compared)
        record.made(1, made["trained"], made["metrics"])
    return made


def _evaluated(
    lake: Lake,
    name: str,
    made: Made,
    prompts: int,
    wins: float,
    longer: int,
    text: str,
    more: dict[str, float],
    compared: bool,
) -> Made:
    questions = [f"held-out question {place}? {text}" for place in range(prompts)]
    asked = named(f"held out {prompts} {text}")
    digests = [hashlib.sha256(one.encode()).hexdigest()[:16] for one in questions]
    rows = pa.table(
        {
            "id": ids(asked, prompts),
            "digest": digests,
            "prompt": questions,
            "split": ["held_out"] * prompts,
        }
    )
    found: Made = {"held_out": write(lake, "prompts", asked, "load_prompts", rows, {})}
    won = np.arange(prompts) < round(wins * prompts)
    judge = write(
        lake,
        "models",
        named("judge"),
        "train_reward_model",
        pa.table({"id": ids(named("judge"), 1), "name": ["independent"], "role": ["reward"]}),
        {},
    )
    for side, model, tokens in (
        ("before", made["policy"], 5),
        ("after", made["trained"], 5 + longer),
    ):
        version = named(f"{name} {side} {prompts}")
        answers = [
            f"the {side} answer of {name} to question {place} {text}" for place in range(prompts)
        ]
        rows = pa.table(
            {
                "id": ids(version, prompts), "prompt_id": ids(asked, prompts), "sample": np.zeros(prompts, dtype=np.int32),
                "policy": [model.version] * prompts, "text": answers, "token_ids": [[7] * tokens] * prompts, "finish_reason": ["stop"] * prompts,
            }
        )  # fmt: skip
        found[side] = write(
            lake,
            "completions",
            version,
            "sample",
            rows,
            {"policy": model, "prompts": found["held_out"]},
        )
        if compared:
            continue
        scores = np.where(won, 1.0, -1.0) if side == "after" else np.zeros(prompts)
        verdicts = named(f"{name} judged {side} {prompts}")
        rows = pa.table(
            {
                "id": ids(verdicts, prompts), "prompt_id": ids(asked, prompts), "completion_id": ids(version, prompts),
                "judge": [judge.version] * prompts, "outcome": ["scored"] * prompts, "score": scores,
            }
        )  # fmt: skip
        found[f"judged_{side}"] = write(
            lake, "verdicts", verdicts, "judge", rows, {"completions": found[side], "by": judge}
        )
    if compared:
        verdicts = named(f"{name} compared {prompts}")
        rows = pa.table(
            {
                "id": ids(verdicts, prompts), "prompt_id": ids(asked, prompts), "completion_id": ids(found["after"].version, prompts),
                "other_id": ids(found["before"].version, prompts), "judge": ["program"] * prompts,
                "outcome": np.where(won, "win", "lose").tolist(), "score": np.where(won, 0.9, 0.3),
            }
        )  # fmt: skip
        parents = {"prompts": found["held_out"], "before": found["before"], "after": found["after"]}
        found["compared"] = write(lake, "verdicts", verdicts, "compare_policies", rows, parents)
    rate, low, high = bootstrap_share(won.astype(float).tolist(), 0)
    figures: list[tuple[str, float, float | None, float | None, str]] = [
        ("win_rate", rate, low, high, "share of prompts")
    ]
    figures += [
        ("judged_prompts", float(prompts), None, None, "prompts"),
        ("length_before", 5.0, None, None, "tokens"),
    ]
    figures += [
        ("length_after", 5.0 + longer, None, None, "tokens"),
        *((key, value, None, None, "") for key, value in more.items()),
    ]
    version = named(f"{name} evaluated")
    columns = dict(
        zip(
            ("name", "value", "low", "high", "unit"),
            map(list, zip(*figures, strict=True)),
            strict=True,
        )
    )
    rows = pa.table(
        {
            "id": ids(version, len(figures)),
            "subject": [made["trained"].version] * len(figures),
            **columns,
        }
    )
    parents = {
        "policy": made["trained"],
        **{key: ref for key, ref in found.items() if key != "held_out"},
    }
    found["metrics"] = write(lake, "metrics", version, "evaluate", rows, parents)
    return found
