"""`dapflow chat` and `dapflow serve`: a model of the lake, or any other, to talk to. Test: pytest
tests/flows/cli/test_chat.py
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import Parameter, validators
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from dapflow.flows.cli.options import Lake, Port, check_free
from dapflow.flows.display.screen import Screen
from dapflow.flows.server.environment import prepare
from dapflow.storage.errors import LakeError, UserError
from dapflow.storage.lake import Lake as OpenLake
from dapflow.storage.location import locate
from dapflow.storage.policies import NEWEST, PROMOTED
from dapflow.storage.refs import ModelRef

_NEW = "/new"
Temperature = Annotated[float, Parameter(validator=validators.Number(gte=0))]
Tokens = Annotated[int, Parameter(validator=validators.Number(gte=1))]


def chat(
    model: str = NEWEST,
    /,
    *,
    versus: str | None = None,
    system: str | None = None,
    temperature: Temperature = 0.7,
    max_tokens: Tokens = 200,
    lake: Lake = "lake",
) -> None:
    """Talk to a model in the terminal; with --versus to two at once. /new begins anew, Ctrl-D ends
    it.

    Example: dapflow chat models@3f9c01 --versus embedded:smollm2-135m

    Parameters
    ----------
    model
        A version of the lake, the `promoted` or the `newest` policy in it, a directory, or a name such as embedded:smollm2-135m.
    versus
        A second one, whose answers stand beside the first's.
    """
    prepare(None)
    console = Screen()
    names = [model] if versus is None else [model, versus]
    with console.status("loading ..."):
        from dapflow.tasks.models.chat import context_length
        from dapflow.tasks.models.names import load

        loaded = [load(_path(name, lake)) for name in names]
    for one, name in zip(loaded, names, strict=True):
        if max_tokens >= (most := context_length(one.model)):
            raise UserError(
                f"--max-tokens {max_tokens}: {name} holds {most} tokens, and what is said is "
                "among them: take fewer."
            )
    histories: list[list[dict[str, str]]] = [[] for _ in names]
    for turn, said in enumerate(_lines()):
        if said == _NEW:
            histories = [[] for _ in names]
            continue
        with console.status("..."):
            answers = [
                _answer(one, history, said, system, temperature, max_tokens, turn)
                for one, history in zip(loaded, histories, strict=True)
            ]
        width = console.width // 2 - 1
        shown = [
            Panel(Text(answer), title=Text(name), title_align="left", width=width)
            for name, answer in zip(names, answers, strict=True)
        ]
        console.print(Columns(shown) if versus else Text(answers[0]))


def serve(model: str = NEWEST, /, *, port: Port = 8000, lake: Lake = "lake") -> NoReturn:
    """Serve a model on loopback, with the interface of OpenAI: with vLLM where it is installed,
    else with transformers. Ctrl-C ends it.

    Example: dapflow serve models@3f9c01 --port 8001

    Parameters
    ----------
    model
        A version of the lake, the `promoted` or the `newest` policy in it, a directory, or a name such as embedded:smollm2-135m.
    """
    prepare(None)
    from huggingface_hub.constants import HF_HUB_CACHE

    from dapflow.tasks.models.names import dtype_of
    from dapflow.tasks.servers.serve import HOST, server_command

    Path(HF_HUB_CACHE).mkdir(
        parents=True, exist_ok=True
    )  # transformers' server fails to list its models without it

    path = _path(model, lake)
    check_free(HOST, port)
    command, name = server_command(path, port, str(dtype_of(path)).removeprefix("torch."))
    print(f"{model} as {name} on http://{HOST}:{port}/v1  (with {command[3]})", flush=True)
    os.execvp(command[0], command)


def _path(name: str, address: str) -> Path:
    """The directory of a model by its name in the lake, or of one from outside."""
    from dapflow.tasks.models.names import resolve
    from dapflow.tasks.models.policy import policy_path

    if not locate(address).exists:
        if name in (NEWEST, PROMOTED):
            raise UserError(
                f"There is no lake at {address}, and so no {name} policy: name a model, for "
                "example embedded:smollm2-135m."
            )
        return resolve(name).path
    with OpenLake(address, read_only=True) as lake:
        try:
            ref = lake.ref(name)
        except LakeError:
            if name in (NEWEST, PROMOTED) or name.startswith("models@"):
                raise
            return resolve(name).path
        if not isinstance(ref, ModelRef) or lake.model(ref)["role"] != "policy":
            raise UserError(
                f"{name} is not a policy: `dapflow datasets --kind models` lists the models."
            )
        return policy_path(lake, ref)


def _lines() -> Iterator[str]:
    """What is said, line by line, until the input ends."""
    while True:
        try:
            said = input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return
        if said:
            yield said


def _answer(
    loaded: Any,
    history: list[dict[str, str]],
    said: str,
    system: str | None,
    temperature: float,
    max_tokens: int,
    seed: int,
) -> str:
    """The model's answer; both turns are added to the history, of which the oldest are forgotten
    where the context is full.
    """
    from dapflow.tasks.models.chat import context_length, render_turns
    from dapflow.tasks.sampling.engines.base import Request, Sampling
    from dapflow.tasks.sampling.engines.transformers import TransformersEngine

    history.append({"role": "user", "content": said})
    room = context_length(loaded.model) - max_tokens
    while len(ids := render_turns(loaded.tokenizer, history, system)) > room:
        if len(history) == 1:
            history.clear()
            return f"(too long: {len(ids)} tokens, there is room for {room})"
        del history[:2]
    sampling = Sampling(n=1, temperature=temperature, max_tokens=max_tokens)
    request = Request(prompt_id="", prompt_token_ids=tuple(ids), seeds=(seed,))
    [completion] = TransformersEngine(loaded).generate([request], sampling)
    history.append({"role": "assistant", "content": completion.text})
    return completion.text.strip()
