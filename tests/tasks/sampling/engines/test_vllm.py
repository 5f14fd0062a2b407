"""Real vLLM, in an environment of its own: make test-vllm. Without DAPFLOW_VLLM_PYTHON, or vllm
here, these tests are skipped.
"""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from dapflow.storage import UserError
from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import load, load_own, resolve, save
from dapflow.tasks.models.packed.batches import Group
from dapflow.tasks.models.probe import save_probe
from dapflow.tasks.sampling.engines import vllm as engine
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.sampling.engines.transformers import TransformersEngine
from dapflow.tasks.sampling.engines.vllm_holder import PYTHON as PYTHON_NAME
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.serve import served
from dapflow.tasks.training.losses.loss import Loss
from dapflow.tasks.training.processes.job import Job
from dapflow.tasks.training.settings import Training

PYTHON = os.environ.get(PYTHON_NAME)
pytestmark = [
    pytest.mark.skipif(
        PYTHON is None and find_spec("vllm") is None,
        reason="there is no vllm: make test-vllm installs one",
    ),
    pytest.mark.timeout(900),
]
PROMPTS = [
    "Name three colours.",
    "Why is the sky blue?",
    "Write a line about rain.",
    "What is 2 + 2?",
]
GREEDY = Sampling(n=1, temperature=0, max_tokens=24)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In fp32: in bf16, which some CPUs multiply, two engines take different tokens wherever two
    are nearly as likely.
    """
    directory = tmp_path_factory.mktemp("models") / "first"
    save(load_own(resolve("embedded:smollm2-135m").path, dtype=torch.float32), directory)
    return directory


@pytest.fixture(scope="module")
def second(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with other weights, as training saves them: in fp32, with its probe."""
    directory = tmp_path_factory.mktemp("models") / "second"
    loaded = load_own(first)
    with torch.no_grad():
        for layer in loaded.model.get_decoder().layers[-6:]:  # type: ignore[union-attr]
            layer.mlp.down_proj.weight.mul_(0.7)
    save(loaded, directory)
    save_probe(directory, loaded.model)
    return directory


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    engine.close()


def requests(model: Path, samples: int = 1) -> list[Request]:
    loaded = load(model)
    return [
        Request(
            prompt_id=f"p{n}",
            prompt=prompt,
            prompt_token_ids=tuple(render(loaded.tokenizer, prompt)),
            seeds=tuple(range(7, 7 + samples)),
        )
        for n, prompt in enumerate(PROMPTS)
    ]


def by_row(completions: list[Completion]) -> dict[tuple[str, int], Completion]:
    return {(one.prompt_id, one.sample): one for one in completions}


def of_transformers(model: Path) -> dict[tuple[str, int], Completion]:
    return by_row(list(TransformersEngine(load(model)).generate(requests(model), GREEDY)))


def same_answers(
    ours: dict[tuple[str, int], Completion], theirs: dict[tuple[str, int], Completion]
) -> None:
    """The same greedy text and log-probs within 0.05, but where two tokens are as likely as each
    other.
    """
    equal = [key for key in ours if ours[key].token_ids == theirs[key].token_ids]
    assert len(equal) >= len(ours) - 1
    for key in equal:
        assert (ours[key].text, ours[key].finish_reason) == (
            theirs[key].text,
            theirs[key].finish_reason,
        )
        assert (
            max(abs(a - b) for a, b in zip(ours[key].logprobs, theirs[key].logprobs, strict=True))
            < 0.05
        )


def test_new_weights_come_into_the_running_engine_and_every_swap_is_proved(
    first: Path, second: Path
) -> None:
    said = list[str]()
    loaded = engine.vllm_engine(first, engine.VLLM(), said.append)
    same_answers(by_row(list(loaded.generate(requests(first), GREEDY))), of_transformers(first))
    before = time.monotonic()
    swapped = engine.vllm_engine(second, engine.VLLM(), said.append)
    assert (
        time.monotonic() - before < 20
    )  # the swap itself is said below, and measured in tests/benchmarks/speed/sampling.py
    assert swapped.holder is loaded.holder
    same_answers(by_row(list(swapped.generate(requests(second), GREEDY))), of_transformers(second))
    assert any(
        a.text != b.text
        for a, b in zip(
            of_transformers(first).values(), of_transformers(second).values(), strict=True
        )
    )
    assert "new weights in the running engine" in said[-1]
    back = engine.vllm_engine(first, engine.VLLM(), said.append)
    same_answers(by_row(list(back.generate(requests(first), GREEDY))), of_transformers(first))


def test_an_engine_that_keeps_the_old_weights_stops_the_run(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a small step of training, whose weights answer almost as the old ones do."""
    loaded = load_own(first)
    with torch.no_grad():
        loaded.model.get_decoder().layers[-1].mlp.down_proj.weight.mul_(1.001)  # type: ignore[union-attr]
    save(loaded, tmp_path)
    save_probe(tmp_path, loaded.model)
    engine.vllm_engine(first, engine.VLLM())
    swap = engine._swap
    monkeypatch.setattr(
        engine, "_swap", lambda *_: None
    )  # as where a sleeping engine swallows the update
    with pytest.raises(UserError, match="does not sample from the weights in"):
        engine.vllm_engine(tmp_path, engine.VLLM())
    monkeypatch.setattr(engine, "_swap", swap)
    engine.vllm_engine(first, engine.VLLM())
    engine.vllm_engine(tmp_path, engine.VLLM())


def test_adapters_are_swapped_where_their_base_is_the_engine_s_and_weights_where_it_is_not(
    first: Path, tmp_path: Path
) -> None:
    settings, said = engine.VLLM(lora_rank=8), list[str]()
    policies = [first, tmp_path / "one", tmp_path / "two"]
    for number, (base, policy) in enumerate(pairwise(policies)):
        (tmp_path / f"work-{number}").mkdir()
        group = Group(prompt=(5, 6, 7), answers=((9, 11), (20, 21, 22)), row_ids=("a",))
        training = Training(
            parameters="lora", lora_rank=8, learning_rate=1e-2, epochs=3, dtype="float32"
        )
        job = Job(
            policy=base, groups=[group], loss=Loss.of("hinge"), training=training, seed=number
        )
        job.run(tmp_path / f"work-{number}", lambda log: None)
        (tmp_path / f"work-{number}" / "partial-policy").rename(policy)
    engine.vllm_engine(first, settings, said.append)
    for policy in policies[1:]:
        swapped = engine.vllm_engine(policy, settings, said.append)
        same_answers(
            by_row(list(swapped.generate(requests(policy), GREEDY))), of_transformers(policy)
        )
    bases = engine._held[0].base
    assert (
        bases == policies[2]
    )  # its adapter was trained on the first one's merged weights, which the engine did not have
    assert "loaded" in said[1] and all("new weights" in one for one in said[2:])
    abandoned = swapped.generate(requests(policy), GREEDY)
    next(abandoned)
    abandoned.close()  # type: ignore[attr-defined]
    same_answers(by_row(list(swapped.generate(requests(policy), GREEDY))), of_transformers(policy))


def test_rows_follow_their_seeds_and_the_options(first: Path) -> None:
    loaded, sampling = (
        engine.vllm_engine(first, engine.VLLM()),
        Sampling(n=3, temperature=0.8, top_p=0.95, max_tokens=16),
    )
    once = by_row(list(loaded.generate(requests(first, 3), sampling)))
    again = by_row(list(loaded.generate(requests(first, 3)[:2], sampling)))
    assert len(once) == 12
    assert all(once[key].token_ids == again[key].token_ids for key in again)
    assert len({one.text for one in once.values()}) > 8
    stopped = list(
        loaded.generate(
            requests(first), GREEDY.model_copy(update={"stop": (" ",), "max_tokens": 8})
        )
    )
    assert all(" " not in one.text for one in stopped)


def test_more_prompt_tokens_than_a_batch_holds_keep_their_seeds(first: Path) -> None:
    """Prompts that vllm would compute in two parts: on a CPU, with seeds, that ended the engine."""
    loaded, sampling = engine.vllm_engine(first, engine.VLLM()), Sampling(n=2, max_tokens=2)
    long = [
        Request(
            prompt_id=str(n),
            prompt_token_ids=tuple(1000 + (n * 31 + place) % 5000 for place in range(700)),
            seeds=(n, n + 1),
        )
        for n in range(16)
    ]
    once = by_row(list(loaded.generate(long, sampling)))
    again = by_row(list(loaded.generate(long[9:11], sampling)))
    assert len(once) == 32
    assert all(once[key].token_ids == again[key].token_ids for key in again)


def test_a_server_gives_the_same_through_the_openai_engine(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    python = PYTHON or "python"
    options = "--host 127.0.0.1 --served-model-name policy --enforce-eager --dtype float32"
    # `vllm serve`, on a CPU too
    command = f"{python} -m vllm.entrypoints.openai.api_server --model {{model}} --port {{port}} {options}"
    engine.close()
    with served(command, first, tmp_path / "log") as url:
        endpoint = Endpoint(base_url=url, model="policy", api="completions", token_ids=True)
        with OpenAIEngine(endpoint) as asking:
            found = by_row(list(asking.generate(requests(first), GREEDY)))
    same_answers(found, of_transformers(first))
