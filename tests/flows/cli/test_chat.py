"""`dapflow chat` and `dapflow serve`, as a user would have them."""

import io
import socket
import sys
from pathlib import Path

import pytest

from dapflow.tasks.sampling.engines.base import Request, Sampling
from dapflow.tasks.sampling.engines.openai import OpenAIEngine
from dapflow.tasks.servers.client import Endpoint
from dapflow.tasks.servers.serve import served
from tests.helpers import ROOT
from tests.helpers.lakes import empty_lake
from tests.helpers.toy import dapflow


def test_two_models_answer_side_by_side_and_a_long_talk_forgets_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "Hello?\n" + "word " * 40 + "\n/new\n" + "word " * 2000 + "\n"
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    command = ("chat", "toy", "--versus", "toy", "--max-tokens", "40")
    code, out, err = dapflow(*command, "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert code == 0, err
    assert out.count("─ toy ─") == 6  # three answers of two
    assert "(too long:" in out
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "There is no model `nobody`"),
        ([], "There is no lake at"),
        (["toy", "--max-tokens", "0"], "--max-tokens"),
        (["toy", "--max-tokens", "512"], "--max-tokens 512: toy holds 512 tokens"),
    ],
)
def test_what_is_not_there_is_said_in_a_sentence(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = dapflow("chat", *arguments, "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize("port", ["0", "99999"])
def test_a_port_that_is_none_is_said(
    tmp_path: Path, port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = dapflow(
        "serve", "toy", "--port", port, "--lake", str(tmp_path / "lake"), capsys=capsys
    )
    assert (code, "--port" in err) == (2, True)


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, _, err = dapflow(
            "serve", "toy", "--port", port, "--lake", str(tmp_path / "lake"), capsys=capsys
        )
    assert code == 2
    assert (
        f"Nothing can listen on 127.0.0.1:{port} (Address already in use): choose another --port."
        in err
    )


def test_a_version_that_the_lake_does_not_hold_is_not_looked_for_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty_lake(tmp_path / "lake")
    code, _, err = dapflow("chat", "models@ffff", "--lake", str(tmp_path / "lake"), capsys=capsys)
    assert code == 2
    assert "Nothing in the lake has the id models@ffff" in err


@pytest.mark.slow
def test_a_served_model_answers_through_the_openai_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("DAPFLOW_VLLM_PYTHON", raising=False)
    command = f"{sys.executable} -m dapflow.flows.cli.main serve toy --port {{port}} --lake {tmp_path / 'lake'}"
    with served(command, tmp_path, tmp_path / "log") as url:
        name = next(
            line
            for line in (tmp_path / "log").read_text().splitlines()
            if line.startswith("toy as ")
        ).split()[2]
        with OpenAIEngine(Endpoint(base_url=url, model=name)) as engine:
            requests = [
                Request(prompt_id=str(n), prompt="Say hi", prompt_token_ids=(), seeds=(n,))
                for n in range(4)
            ]
            answers = list(engine.generate(requests, Sampling(n=1, max_tokens=20)))
    assert len(answers) == 4
    assert any(answer.text for answer in answers)
