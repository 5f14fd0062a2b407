"""Lakes as iterations leave them, of any size: prompts, completions, verdicts, acceptances, pairs,
a policy and its metrics.
"""

import atexit
import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa

from dapflow.storage import Lake, OpenVersion, Ref
from dapflow.storage.versions import Opening, open_version

Made = dict[str, Ref]
ACTIVITY_OF = {
    "prompts": "loading", "completions": "sampling", "verdicts": "judging",
    "acceptances": "accepting", "pairs": "pairing", "models": "training", "metrics": "measuring",
}  # fmt: skip


def empty_lake(root: Path) -> Path:
    """A new lake at `root`, as a copy: that is a thirtieth of the time that making its tables
    takes.
    """
    return Path(shutil.copytree(_empty(), root, dirs_exist_ok=True))


def iterated_lake(root: Path) -> Made:
    """A lake at `root` with an initial policy and its first iteration, as a copy."""
    lake, made = _iterated()
    shutil.copytree(lake, root)
    return dict(made)


@cache
def _empty() -> Path:
    lake = _folder() / "lake"
    Lake(lake).close()
    return lake


@cache
def _iterated() -> tuple[Path, Made]:
    root = empty_lake(_folder() / "lake")
    with Lake(root) as lake:
        return root, iteration(lake, 1, initial_policy(lake))


def _folder() -> Path:
    """A directory that goes with the process."""
    folder = tempfile.mkdtemp(prefix="dapflow-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def write(
    lake: Lake,
    kind: str,
    version: str,
    step: str,
    rows: pa.Table,
    parents: dict[str, Ref],
    chunks: int = 1,
) -> Ref:
    """A complete version with these rows, in so many chunks."""
    opening = Opening(
        kind=kind,
        version=version,
        step=step,
        activity=ACTIVITY_OF[kind],
        code="c0de",
        parameters={"step": step},
    )
    with open_version(lake, opening) as opened:
        if not isinstance(opened, OpenVersion):
            return opened
        size = -(-len(rows) // chunks)
        for chunk in range(chunks):
            opened.write(chunk, rows.slice(chunk * size, size))
        return opened.complete({role: ref.version for role, ref in parents.items()}, "flow", "task")


def named(name: str) -> str:
    """A version for a test: 16 hexadecimal digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def initial_policy(lake: Lake) -> Ref:
    """The model that the first iteration samples from, and the judge."""
    version = named("initial")
    return write(
        lake,
        "models",
        version,
        "register_model",
        pa.table({"id": ids(version, 1), "name": ["toy"], "role": ["policy"]}),
        {},
    )


def iteration(
    lake: Lake,
    number: int,
    policy: Ref,
    prompts: int = 4,
    n: int = 4,
    tokens: int = 3,
    chunks: int = 1,
) -> Made:
    """One iteration: of each prompt's `n` completions the first is chosen and the last rejected;
    the first prompt's pair is a tie.
    """
    v = {
        kind: named(f"{kind} {number}")
        for kind in (
            "prompts",
            "completions",
            "verdicts",
            "acceptances",
            "pairs",
            "models",
            "metrics",
        )
    }
    count = prompts * n
    texts = [f"question {number}.{place} of a prompt" for place in range(prompts)]
    prompt_ids, completion_ids = ids(v["prompts"], prompts), ids(v["completions"], count)
    of_prompt = [prompt_ids[place // n] for place in range(count)]
    answers = [f"answer {place} to the prompt of iteration {number}" for place in range(count)]
    made: Made = {"policy": policy}
    rows = pa.table(
        {
            "id": prompt_ids, "digest": [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts], "prompt": texts,
            "source": [f"prompts.jsonl:{place}" for place in range(prompts)], "split": ["train"] * prompts,
            "parents": pa.array([[]] * prompts, pa.list_(pa.string())),
        }
    )  # fmt: skip
    made["prompts"] = write(lake, "prompts", v["prompts"], "load_prompts", rows, {})
    drawn = np.random.default_rng(number).integers(0, 49152, count * tokens, dtype=np.int32)
    offsets = np.arange(0, count * tokens + 1, tokens, dtype=np.int32)
    rows = pa.table(
        {
            "id": completion_ids, "prompt_id": of_prompt, "sample": np.arange(count, dtype=np.int32) % n, "policy": [policy.version] * count,
            "text": answers, "token_ids": pa.ListArray.from_arrays(offsets, drawn),
            "logprobs": pa.ListArray.from_arrays(offsets, -np.ones(count * tokens, dtype=np.float32)),
            "finish_reason": ["stop"] * count, "seed": np.arange(count, dtype=np.int64) + number,
        }
    )  # fmt: skip
    made["completions"] = write(
        lake,
        "completions",
        v["completions"],
        "sample",
        rows,
        {"policy": policy, "prompts": made["prompts"]},
        chunks,
    )
    scores = [float(n - place % n) for place in range(count)]
    rows = pa.table(
        {
            "id": ids(v["verdicts"], count), "prompt_id": of_prompt, "completion_id": completion_ids, "judge": [named("initial")] * count,
            "outcome": ["scored"] * count, "score": scores,
        }
    )  # fmt: skip
    made["verdicts"] = write(
        lake,
        "verdicts",
        v["verdicts"],
        "judge",
        rows,
        {"completions": made["completions"], "by": policy},
    )
    rows = pa.table(
        {
            "id": ids(v["acceptances"], count), "prompt_id": of_prompt, "completion_id": completion_ids, "reward": scores,
            "accepted": [True] * count, "sweep": np.zeros(count, dtype=np.int32),
        }
    )  # fmt: skip
    parents = {"completions": made["completions"], "verdicts": made["verdicts"]}
    made["acceptances"] = write(lake, "acceptances", v["acceptances"], "accept", rows, parents)
    chosen, rejected = np.arange(prompts) * n, np.arange(prompts) * n + n - 1
    rows = pa.table(
        {
            "id": ids(v["pairs"], prompts), "prompt_id": prompt_ids, "chosen_id": [completion_ids[place] for place in chosen],
            "rejected_id": [completion_ids[place] for place in rejected], "prompt": texts, "chosen": [answers[place] for place in chosen],
            "rejected": [answers[place] for place in rejected], "margin": [float(n - 1)] * prompts, "source": ["first-round"] * prompts,
            "dropped": pa.array(["tie"] + [None] * (prompts - 1), pa.string()),
        }
    )  # fmt: skip
    parents = {
        "prompts": made["prompts"],
        "completions": made["completions"],
        "acceptances": made["acceptances"],
    }
    made["pairs"] = write(lake, "pairs", v["pairs"], "pair", rows, parents)
    rows = pa.table(
        {
            "id": ids(v["models"], 1),
            "name": ["policy"],
            "role": ["policy"],
            "parent": [policy.version],
            "digest": ["d"],
        }
    )
    made["trained"] = write(
        lake, "models", v["models"], "train", rows, {"policy": policy, "pairs[0]": made["pairs"]}
    )
    rows = pa.table(
        {"id": ids(v["metrics"], 1), "subject": [v["models"]], "name": ["win_rate"], "value": [0.6]}
    )
    made["metrics"] = write(
        lake, "metrics", v["metrics"], "evaluate", rows, {"policy": made["trained"]}
    )
    return made


def ids(version: str, count: int) -> list[str]:
    """Row ids of a version."""
    return [f"{version}-{place:08d}" for place in range(count)]


def numbered(lake: Lake, number: int, chunks: int = 2) -> Ref:
    """A small version of prompts, in chunks of three rows: the same ones for the same number."""
    version = named(f"number {number}")
    rows = pa.table(
        {
            "id": ids(version, 3 * chunks),
            "prompt": [f"prompt {number}.{place}" for place in range(3 * chunks)],
        }
    )
    return write(lake, "prompts", version, "number", rows, {}, chunks)
