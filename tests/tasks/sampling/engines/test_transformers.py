"""The in-process engine against plain forwards and `generate`, on toy models in float32.

Run: pytest tests/tasks/sampling/engines/test_transformers.py
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from dapflow.storage import UserError
from dapflow.tasks.models.chat import render
from dapflow.tasks.models.names import Loaded, load, resolve
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.transformers import TransformersEngine

END, OTHER_END, CONTEXT = 7, 8, 128
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 1,
    "eos_token_id": END,
    "pad_token_id": 0,
}
SHORT: dict[str, Any] = {
    "vocab_size": 300,
    "n_head": 4,
    "n_layer": 2,
    "bos_token_id": 1,
    "eos_token_id": END,
}
CONFIGS = [
    LlamaConfig(**SIZES),
    Qwen2Config(**SIZES),
    GPTNeoXConfig(**SIZES),
    GemmaConfig(**SIZES, head_dim=8),
    Gemma2Config(
        **SIZES, head_dim=8, sliding_window=6
    ),  # a window in every other layer, soft-capped logits
    Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=6),
    MistralConfig(**SIZES, sliding_window=5),
    GPT2Config(**SHORT, n_embd=32),  # learned positions
    BloomConfig(**SHORT, hidden_size=32),  # no positions but a slope, no context length
]


class Numbers:
    """A tokenizer that spells token ids out."""

    eos_token_id = None

    def decode(self, ids: Sequence[int], **_: object) -> str:
        return " ".join(map(str, ids))


def toy(config: PreTrainedConfig) -> Loaded:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # a distribution that is not flat
    return Loaded(model=model, tokenizer=Numbers())


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Toy models gain nothing from a second thread, and where others keep the cores busy threads
    wait for each other in every operation.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama() -> Loaded:
    return toy(CONFIGS[0])


def ask(count: int, samples: int = 1, longest: int = 24) -> list[Request]:
    """Requests of mixed lengths, the shortest of one token; each row has a seed of its own."""
    rng = random.Random(0)
    lengths = [1, longest, *(rng.randrange(2, longest) for _ in range(count - 2))]
    return [
        Request(
            prompt_id=f"p{number}",
            prompt_token_ids=tuple(rng.randrange(10, 300) for _ in range(length)),
            seeds=tuple(100 * number + sample for sample in range(samples)),
        )
        for number, length in enumerate(lengths)
    ]


def answers(
    loaded: Loaded, requests: Sequence[Request], sampling: Sampling, **options: Any
) -> dict[tuple[str, int], Completion]:
    completions = list(TransformersEngine(loaded, **options).generate(requests, sampling))
    by_row = {(one.prompt_id, one.sample): one for one in completions}
    assert len(by_row) == len(completions) == sum(len(request.seeds) for request in requests)
    return by_row


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_greedy_answers_are_those_of_generate(config: PreTrainedConfig) -> None:
    # three places for twelve rows of up to 80 tokens: rows come and go, and the cache's clock is
    # turned back
    loaded, requests = toy(config), ask(6, samples=2)
    model: Any = loaded.model
    got = answers(loaded, requests, Sampling(temperature=0, max_tokens=80), max_rows=3)
    for request in requests:
        ids = torch.tensor([request.prompt_token_ids])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=80,
            do_sample=False,
            pad_token_id=0,
        )
        for sample in (0, 1):
            assert got[request.prompt_id, sample].token_ids == whole[0, ids.shape[1] :].tolist()


@pytest.mark.parametrize(
    "sampling",
    [Sampling(max_tokens=40), Sampling(max_tokens=40, temperature=0.8, top_p=0.9)],
    ids=["plain", "nucleus"],
)
def test_a_row_alone_equals_the_row_in_any_batch(llama: Loaded, sampling: Sampling) -> None:
    requests = ask(8, samples=3)
    together = answers(llama, requests, sampling)
    crowded = answers(llama, requests, sampling, max_rows=2)
    for request in requests:
        for sample, seed in enumerate(request.seeds):
            lone = Request(prompt_id="x", prompt_token_ids=request.prompt_token_ids, seeds=(seed,))
            row = answers(llama, [lone], sampling)["x", 0].token_ids
            assert (
                row
                == together[request.prompt_id, sample].token_ids
                == crowded[request.prompt_id, sample].token_ids
            )


def test_the_same_requests_give_the_same_rows_to_the_bit(llama: Loaded) -> None:
    requests, sampling = ask(6, samples=2), Sampling(max_tokens=30, top_p=0.95)
    assert list(TransformersEngine(llama).generate(requests, sampling)) == list(
        TransformersEngine(llama).generate(requests, sampling)
    )


def test_an_engine_that_has_sampled_before_gives_the_same_rows_to_the_bit(llama: Loaded) -> None:
    requests, sampling = ask(6, samples=2), Sampling(max_tokens=30)
    engine = TransformersEngine(llama)
    first = list(engine.generate(requests, sampling))
    assert list(
        engine.generate(ask(3, samples=5, longest=60), Sampling(max_tokens=50))
    )  # longer rows leave theirs in the cache's memory
    assert list(engine.generate(requests, sampling)) == first


def test_seeds_make_the_rows_and_nothing_global_does(llama: Loaded) -> None:
    prompt = ask(2)[1].prompt_token_ids
    requests = [Request(prompt_id="x", prompt_token_ids=prompt, seeds=(1, 2, 1))]
    state = torch.random.get_rng_state()
    rows = answers(llama, requests, Sampling(max_tokens=30))
    assert rows["x", 0].token_ids == rows["x", 2].token_ids != rows["x", 1].token_ids
    assert torch.equal(state, torch.random.get_rng_state())


def test_logprobs_are_those_of_a_plain_forward_at_temperature_one(llama: Loaded) -> None:
    requests = ask(5, samples=2)
    got = answers(llama, requests, Sampling(max_tokens=20, temperature=0.5, top_k=5), max_rows=4)
    for request in requests:
        completion = got[request.prompt_id, 1]
        ids = torch.tensor([[*request.prompt_token_ids, *completion.token_ids]])
        with torch.no_grad():
            logits = llama.model(input_ids=ids).logits[0, len(request.prompt_token_ids) - 1 : -1]
        wanted = (
            logits.double()
            .log_softmax(-1)
            .gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        )
        torch.testing.assert_close(
            torch.tensor(completion.logprobs).double(), wanted, rtol=0, atol=1e-4
        )


def test_a_finished_answer_ends_in_one_end_token_and_a_truncated_one_has_none() -> None:
    sizes: dict[str, Any] = {**SIZES, "eos_token_id": [END, OTHER_END]}
    loaded = toy(LlamaConfig(**sizes))
    with torch.no_grad():
        loaded.model.lm_head.weight[[END, OTHER_END]] *= (
            2  # about half of the rows end early, in either token
        )
    got = answers(loaded, ask(16, samples=4), Sampling(max_tokens=25)).values()
    finished = [one for one in got if one.finish_reason == "stop"]
    truncated = [one for one in got if one.finish_reason == "length"]
    assert {one.token_ids[-1] for one in finished} == {END, OTHER_END}
    assert all(not {END, OTHER_END} & set(one.token_ids[:-1]) for one in finished)
    assert truncated
    assert all(
        len(one.token_ids) == 25 and not {END, OTHER_END} & set(one.token_ids) for one in truncated
    )
    assert all(len(one.token_ids) == len(one.logprobs) for one in got)


def test_an_answer_stops_where_the_context_ends(llama: Loaded) -> None:
    request = Request(
        prompt_id="x", prompt_token_ids=tuple(range(10, 10 + CONTEXT - 3)), seeds=(1, 2)
    )
    rows = answers(llama, [request, *ask(3)], Sampling(temperature=0, max_tokens=10))
    assert len(rows["x", 0].token_ids) == 3
    assert rows["x", 0].finish_reason == "length"


def test_little_memory_means_fewer_rows_and_the_same_answers(llama: Loaded) -> None:
    requests, sampling = ask(5, samples=2), Sampling(max_tokens=12)
    assert answers(llama, requests, sampling, max_cache_bytes=1) == answers(
        llama, requests, sampling, max_rows=1
    )


def test_every_token_is_reported_once(llama: Loaded) -> None:
    heard = list[int]()
    completions = list(
        TransformersEngine(llama, max_rows=4).generate(
            ask(5, samples=2), Sampling(max_tokens=9), heard.append
        )
    )
    assert sum(heard) == sum(len(one.token_ids) for one in completions)
    assert all(heard)


def test_no_requests_no_completions(llama: Loaded) -> None:
    assert list(TransformersEngine(llama).generate([], Sampling())) == []
    assert (
        list(
            TransformersEngine(llama).generate(
                [Request(prompt_id="x", prompt_token_ids=(5,), seeds=())], Sampling()
            )
        )
        == []
    )


def test_a_recurrent_model_is_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"MambaForCausalLM .* recurrent"):
        TransformersEngine(toy(MambaConfig(vocab_size=300, hidden_size=32, num_hidden_layers=2)))


def test_the_toy_policy_gives_text_and_answers_of_varied_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPFLOW_CACHE", str(tmp_path))
    loaded = load(resolve("toy").path)
    prompts = [tuple(render(loaded.tokenizer, f"Question {number}: why?")) for number in range(64)]
    requests = [
        Request(prompt_id=str(number), prompt_token_ids=ids, seeds=(number,))
        for number, ids in enumerate(prompts)
    ]
    got = answers(loaded, requests, Sampling(max_tokens=64)).values()
    assert {one.finish_reason for one in got} == {"stop", "length"}
    assert len({len(one.token_ids) for one in got}) > 2
    assert not any(
        special in one.text for one in got for special in loaded.tokenizer.all_special_tokens
    )


@pytest.mark.embedded
def test_smollm2_answers_a_question() -> None:
    loaded = load(resolve("embedded:smollm2-135m").path)
    prompt = tuple(render(loaded.tokenizer, "What is the capital of France?"))
    request = Request(prompt_id="x", prompt_token_ids=prompt, seeds=(1,))
    answer = answers(loaded, [request], Sampling(temperature=0, max_tokens=30))["x", 0]
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"


def test_a_repetition_penalty_is_that_of_generate_and_leaves_the_logprobs_raw(
    llama: Loaded,
) -> None:
    requests, sampling = ask(6), Sampling(temperature=0, max_tokens=30, repetition_penalty=1.3)
    got = answers(llama, requests, sampling, max_rows=3)
    model: Any = llama.model
    for request in requests:
        ids = torch.tensor([request.prompt_token_ids])
        whole = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=30,
            do_sample=False,
            pad_token_id=0,
            repetition_penalty=1.3,
        )
        assert got[request.prompt_id, 0].token_ids == whole[0, ids.shape[1] :].tolist()
        with torch.no_grad():
            logits = model(input_ids=whole).logits[0, ids.shape[1] - 1 : -1]
        wanted = logits.log_softmax(-1).gather(1, whole[0, ids.shape[1] :, None])[:, 0]
        torch.testing.assert_close(
            torch.tensor(got[request.prompt_id, 0].logprobs), wanted, rtol=0, atol=1e-4
        )


def test_a_stop_string_ends_a_row_and_is_cut_off(llama: Loaded) -> None:
    requests = ask(4, samples=3)
    plain = answers(llama, requests, Sampling(max_tokens=30))
    stop = plain["p2", 1].text.split()[7] + " "  # the spelling of the eighth token
    got = answers(llama, requests, Sampling(max_tokens=30, stop=(stop, "never this")), max_rows=5)
    assert got["p2", 1].finish_reason == "stop"
    assert len(got["p2", 1].token_ids) <= 9
    for key, whole in plain.items():
        text = whole.text.partition(stop)[0] if stop in whole.text else whole.text
        assert got[key].text == text
        assert got[key].token_ids == whole.token_ids[: len(got[key].token_ids)]
