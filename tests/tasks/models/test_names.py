"""Models by name: what is found, what is refused and how, and the cache of the embedded ones. Run:
pytest tests/tasks/models/test_names.py
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dapflow.storage import UserError
from dapflow.tasks.models import embedded
from dapflow.tasks.models.directory import files_digest
from dapflow.tasks.models.names import load, load_own, models_in_memory, release, resolve, save


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache directory with the toy in it."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAPFLOW_CACHE", str(cache))
        yield resolve("toy").path
    release()


@pytest.fixture
def copy(toy: Path, tmp_path: Path) -> Path:
    """A directory of one's own with the toy's files."""
    return Path(shutil.copytree(toy, tmp_path / "model"))


def test_the_toy_is_the_same_to_the_bit_wherever_it_is_made(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPFLOW_CACHE", str(tmp_path))
    torch.rand(3)  # the global stream has no part in it
    again = resolve("toy")
    assert again.path != toy
    assert again.digest == embedded.recorded_digest(toy) == files_digest(toy)


def test_the_toy_has_distinct_special_tokens_and_a_template(toy: Path) -> None:
    tokenizer: Any = load(toy).tokenizer
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    text = "Straße, naïve, 日本語\n\tand  spaces"
    assert (
        tokenizer.decode(
            tokenizer(text, add_special_tokens=False)["input_ids"],
            clean_up_tokenization_spaces=False,
        )
        == text
    )


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _alter(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage", [_truncate, _alter, Path.unlink], ids=["truncated", "one bit", "gone"]
)
def test_a_damaged_cached_model_is_made_again_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("DAPFLOW_CACHE", str(tmp_path))
    first, heard = resolve("toy"), list[str]()
    damage(first.path / "model.safetensors")
    again = resolve("toy", heard.append)
    assert again == first
    assert files_digest(again.path) == first.digest
    assert heard == ["The cached copy of toy is damaged; it is made again."]


def test_a_maker_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(target: Path, notify: object) -> None:
        (target / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("power cut")

    monkeypatch.setenv("DAPFLOW_CACHE", str(tmp_path))
    monkeypatch.setitem(embedded.MAKERS, "toy", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        resolve("toy")
    assert [file.suffix for file in (tmp_path / "models").iterdir()] in ([".lock"], [])


def test_a_directory_is_a_model_and_its_digest_covers_every_file(copy: Path) -> None:
    before = resolve(str(copy)).digest
    for name in (
        "chat_template.jinja",
        "tokenizer_config.json",
        "config.json",
        "model.safetensors",
    ):
        kept = (copy / name).read_bytes()
        (copy / name).write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        assert files_digest(copy) != before, name
        (copy / name).write_bytes(kept)
    assert resolve(str(copy)).digest == before


def _keep_bin_only(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _empty_header(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\x00" * 4)


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (lambda model: (model / "config.json").unlink(), "no config.json"),
    (_keep_bin_only, "no \\*.safetensors.*save it as safetensors"),
    (lambda model: (model / "tokenizer.json").unlink(), "no tokenizer"),
    (lambda model: _truncate(model / "model.safetensors"), "truncated or corrupt.*again"),
    (_empty_header, "truncated or corrupt.*again"),
]


@pytest.mark.parametrize(
    ("damage", "sentence"), REFUSED, ids=["config", "bin", "tokenizer", "truncated", "header"]
)
def test_what_is_no_model_is_refused_with_what_to_do(
    copy: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(copy)
    with pytest.raises(UserError, match=sentence):
        resolve(str(copy))


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(
        UserError,
        match="There is no model `gpt-9`: give `embedded:smollm2-135m`, `toy`, a directory",
    ):
        resolve("gpt-9")


def test_a_hub_id_without_a_network_says_what_to_do() -> None:
    with pytest.raises(
        UserError, match=r"nobody/nothing cannot be had from the hub .* or give a directory"
    ):
        resolve("nobody/nothing")


def test_a_model_that_brings_code_is_never_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "evil.py").write_text("raise SystemExit('code of the model was run')")
    auto_map = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (copy / "config.json").write_text(
        json.dumps(config | {"model_type": "evil", "auto_map": auto_map})
    )
    with pytest.raises(UserError, match="cannot be loaded"):
        load(copy)


def test_three_models_stay_loaded(toy: Path, tmp_path: Path) -> None:
    release()
    first = load(toy)
    assert load(toy) is first
    for number in range(3):
        load(Path(shutil.copytree(toy, tmp_path / str(number))))
    assert load(toy) is not first


def test_models_in_memory_are_counted_with_their_weights_and_a_part_of_one_is_no_other(
    toy: Path,
) -> None:
    release()
    count, size = models_in_memory()
    model = load_own(toy).model
    weights = {
        weight.data_ptr(): weight.numel() * weight.element_size() for weight in model.parameters()
    }
    assert models_in_memory() == (count + 1, size + sum(weights.values()))
    alone: Any = model.get_decoder()  # a network without its head, as of a value model
    del model
    release()
    assert models_in_memory()[0] == count + 1
    del alone
    release()
    assert models_in_memory() == (count, size)


def test_a_loaded_model_is_in_eval_mode_and_of_the_asked_dtype(toy: Path) -> None:
    model = load(toy, dtype=torch.bfloat16).model
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_what_was_saved_loads_with_the_same_weights(toy: Path, tmp_path: Path) -> None:
    save(load(toy), tmp_path / "saved")
    again = load(resolve(str(tmp_path / "saved")).path)
    for name, parameter in load(toy).model.state_dict().items():
        assert torch.equal(parameter, again.model.state_dict()[name])


def test_a_wheel_that_is_not_there_or_not_the_published_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAPFLOW_CACHE", str(tmp_path))
    monkeypatch.setenv("DAPFLOW_SMOLLM2_WHEEL", str(tmp_path / "none.whl"))
    with pytest.raises(
        UserError, match=r"DAPFLOW_SMOLLM2_WHEEL names .*none.whl, which is not there"
    ):
        resolve("embedded:smollm2-135m")
    (tmp_path / "none.whl").write_bytes(b"something else")
    with pytest.raises(UserError, match="its sha256 differs"):
        resolve("embedded:smollm2-135m")


def test_two_processes_at_once_make_one_model(tmp_path: Path) -> None:
    script = "import sys; from dapflow.tasks.models.names import resolve; print(resolve('toy', lambda line: print(line, file=sys.stderr)).digest)"
    start = [sys.executable, "-c", script]
    environment = {"DAPFLOW_CACHE": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digests = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(digests) == 1
    assert sorted(file.name for file in (tmp_path / "models").iterdir() if file.is_dir()) == [
        "toy-1"
    ]


@pytest.mark.embedded
def test_the_embedded_model_is_plain_llama_with_a_chat_template(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(
        "DAPFLOW_CACHE", raising=False
    )  # the other tests' own: it would be fetched and converted again
    loaded = load(resolve("embedded:smollm2-135m").path)
    assert loaded.model.config.model_type == "llama"
    assert loaded.model.num_parameters() == 134_515_008
    assert loaded.tokenizer.chat_template
