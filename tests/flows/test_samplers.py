"""`dapflow run` with other samplers than the model in memory: a server somewhere, and a server of
one's own.
"""

import json
import sys
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from dapflow.storage import Lake
from tests.helpers import ROOT
from tests.helpers.model_servers import Behaviour, openai_server
from tests.helpers.toy import BY_LENGTH, dapflow, words

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(
    lake: Path, capsys: pytest.CaptureFixture[str], *more: str, **settings: object
) -> tuple[int, dict[str, Any], str]:
    chosen = (f"sampler.{name.replace('__', '.')}={value}" for name, value in settings.items())
    code, out, err = dapflow(
        "run",
        "rso",
        "--toy",
        "--json",
        "--lake",
        str(lake),
        *words(*BY_LENGTH, *more, *chosen),
        capsys=capsys,
    )
    return code, json.loads(out.splitlines()[-1]) if code == 0 else {}, err


def test_answers_of_a_server_are_kept_as_they_come_without_thoughts_and_never_asked_for_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "planted-secret")
    settings = {"engine": "openai", "endpoint__model": "teacher"}
    numbers, answered = count(), Counter[str]()

    def thinks(prompt: str) -> str:
        return f"<think>What is asked is: {prompt}</think>It is {'so ' * (next(numbers) % 7)}and no other way."

    behaviour = Behaviour(misdeeds=[])

    def refuse_after_two(prompt: str) -> str | None:
        if len(behaviour.answered) >= 2:
            behaviour.misdeeds = ["500"] * 1000
        return None

    behaviour.refuse = refuse_after_two
    with openai_server(behaviour) as url:
        limits = {"endpoint__concurrency": 1, "endpoint__patience_minutes": 0.01}
        code, _, err = run(tmp_path, capsys, **settings, **limits, endpoint__base_url=url)
    assert code == 2
    assert "has failed for 0.01 minutes (status 500)" in err
    answered.update(behaviour.answered)
    assert 0 < len(answered) < 4
    behaviour = Behaviour(misdeeds=["429"], reply=thinks)
    with openai_server(behaviour) as url:
        code, result, err = run(tmp_path, capsys, **settings, endpoint__base_url=url)
    assert code == 0, err
    thought = 12 - 3 * len(answered)  # three answers to each prompt
    warning = f"The policy thinks before it answers. {thought} completions came with a thought, which is left out"
    assert f"WARNING: {warning}" in " ".join(err.split())
    answered.update(behaviour.answered)
    assert set(answered.values()) == {1}  # four prompts, each asked for once in both runs together
    assert len(answered) == 4
    with Lake(tmp_path) as lake:
        [teacher] = lake.rows("SELECT * FROM models WHERE role = 'endpoint'")
        completions = lake.rows("SELECT * FROM completions WHERE policy = ?", [teacher["version"]])
        assert len(completions) == 4 * 3
        assert all(row["text"] and not row["token_ids"] for row in completions)
        thoughts = lake.rows(
            "SELECT text, token_ids, logprobs FROM completions WHERE note LIKE 'a thought of%'"
        )
        [trained] = lake.rows(
            "SELECT * FROM models WHERE version = ?", [result["iterations"][0]["policy"]]
        )
        assert trained["role"] == "policy"
    assert len(thoughts) == thought
    assert all(
        row["text"].startswith("It is ") and not row["token_ids"] and not row["logprobs"]
        for row in thoughts
    )
    code, out, err = dapflow("report", "--json", "--lake", str(tmp_path), capsys=capsys)
    assert code == 0, err
    assert warning in out
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in everything if b"planted-secret" in path.read_bytes()]
    code, again, _ = run(
        tmp_path, capsys, **settings, endpoint__base_url="http://127.0.0.1:9/v1"
    )  # where it was is no part of a version
    assert code == 0
    assert {step["state"] for step in again["steps"]} == {"cached"}


@pytest.mark.slow
def test_a_server_of_one_s_own_serves_the_policy_of_the_iteration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    command = f"{sys.executable} -m tests.helpers.model_servers {{model}} {{port}}"
    code, result, err = run(
        tmp_path,
        capsys,
        "judge=reward-model",
        engine="openai",
        endpoint__model="policy",
        endpoint__api="completions",
        serve=f"'{command}'",
    )
    assert code == 0, err
    with Lake(tmp_path) as lake:
        policy = lake.rows("SELECT version FROM models WHERE name = 'toy'")[0]["version"]
        rows = lake.rows("SELECT * FROM completions WHERE policy = ?", [policy])
        assert rows
        assert all(row["token_ids"] == [5, 6] for row in rows)
    assert any(step["state"] == "run" for step in result["steps"])
