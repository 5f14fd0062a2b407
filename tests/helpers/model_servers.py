"""A real HTTP server on loopback that speaks the OpenAI interface, and misbehaves when it is told
to.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers.batch_jobs import Batches

Body = dict[str, Any]
FAULTS = ("429", "500", "close", "half", "empty", "hang")


@dataclass
class Behaviour:
    """What the server does with its requests: `misdeeds` first, one a request, then answers. It
    writes down what happens.
    """

    misdeeds: list[str] = field(default_factory=list)
    seconds: float = 0.0  # before each answer
    hang_seconds: float = 3.0
    choices: int | None = None  # at most so many an answer
    without_text: set[int] = field(default_factory=set)  # choices that say nothing
    retry_after: str = "0.05"  # seconds that a 429 asks to be left alone
    faults: float = 0.0  # the share of requests that go wrong, by chance
    reply: Callable[[str], str] | None = None  # what it says to a prompt
    ending: Callable[[Body], Body] = (
        lambda body: {}
    )  # of a request: what its choices have in place of the usual, such as a finish_reason
    likeliest: Callable[[str], dict[str, float]] | None = (
        None  # log-probabilities of the likeliest tokens at each place
    )
    refuse: Callable[[str], str | None] = lambda prompt: None
    instead: Callable[[Body], tuple[int, Any] | None] = lambda body: (
        None
    )  # status, and JSON or a text, in place of an answer
    keys: set[str | None] = field(default_factory=set)  # that came
    asked: list[Body] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # prompts
    tokens: list[tuple[int, int]] = field(
        default_factory=list
    )  # prompt and completion, of each answer
    batches: Batches = field(default_factory=Batches)
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Handler(BaseHTTPRequestHandler):
    behaviour: Behaviour
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": "toy", "object": "model"}]})
            return
        with self.behaviour.lock:
            found = self.behaviour.batches.get(self.path, self._reply)
        if isinstance(found, bytes):
            self._send(200, None, text=found.decode())
        else:
            self._send(
                404 if found is None else 200, found or {"error": {"message": "nothing here"}}
            )

    def do_POST(self) -> None:
        behaviour = self.behaviour
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path in ("/v1/files", "/v1/batches"):
            self._batch(data)
            return
        if not self.path.startswith("/v1/"):
            self._send(404, {"error": {"message": "nothing here"}})
            return
        body = json.loads(data)
        with behaviour.lock:
            behaviour.asked.append(body)
            behaviour.keys.add(self.headers["Authorization"])
            behaviour.at_once += 1
            behaviour.most_at_once = max(behaviour.most_at_once, behaviour.at_once)
            misdeed = behaviour.misdeeds.pop(0) if behaviour.misdeeds else None
            if behaviour.chance.random() < behaviour.faults:
                misdeed = behaviour.chance.choice(FAULTS)
        try:
            time.sleep(behaviour.seconds)
            self._misbehave(misdeed) if misdeed else self._answer(body)
        finally:
            with behaviour.lock:
                behaviour.at_once -= 1

    def _batch(self, data: bytes) -> None:
        with self.behaviour.lock:
            if self.path == "/v1/files":
                made = self.behaviour.batches.upload(self.headers["Content-Type"], data)
            else:
                made = self.behaviour.batches.create(json.loads(data))
        if made is None:
            self.close_connection = True
        else:
            self._send(200, made)

    def _misbehave(self, misdeed: str) -> None:
        if misdeed.isdigit():
            self._send(
                int(misdeed),
                {"error": {"message": f"status {misdeed}"}},
                {"Retry-After": self.behaviour.retry_after} if misdeed == "429" else {},
            )
        elif misdeed == "close":
            self.close_connection = True
        elif misdeed == "half":
            self._send(200, None, text='{"id": "x", "choices": [{"ind')
        elif misdeed == "html":
            self._send(200, None, text="<html>It works!</html>")
        elif misdeed == "drip":
            self._drip()
        elif misdeed == "empty":
            self._send(
                200,
                {
                    "id": "x",
                    "object": "chat.completion",
                    "model": "toy",
                    "created": 0,
                    "choices": [],
                },
            )
        elif misdeed == "hang":
            time.sleep(self.behaviour.hang_seconds)
            self.close_connection = True
        else:
            raise AssertionError(misdeed)

    def _drip(self) -> None:
        """A byte now and then, so that no single read takes long."""
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        with suppress(ConnectionError):
            for _ in range(20):
                self.wfile.write(b" ")
                time.sleep(0.1)
        self.close_connection = True

    def _answer(self, body: Body) -> None:
        if instead := self.behaviour.instead(body):
            status, given = instead
            self._send(status, None, text=given if isinstance(given, str) else json.dumps(given))
            return
        status, answer = self._reply(body)
        self._send(status, answer)
        if status == 200:
            with self.behaviour.lock:
                self.behaviour.answered.append(
                    str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])
                )

    def _reply(self, body: Body) -> tuple[int, Body]:
        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        if reason := self.behaviour.refuse(str(prompt)):
            return 400, {"error": {"message": reason}}
        n, said, tops = (
            min(body.get("n", 1), self.behaviour.choices or 99),
            self.behaviour.reply,
            self.behaviour.likeliest,
        )
        texts = [
            said(prompt) if said else f"{prompt} / {body['seed']} / {place}" for place in range(n)
        ]
        choices = [
            _choice(place, text, chat, tops(prompt) if tops else {})
            for place, text in enumerate(texts)
        ]
        choices = [choice | self.behaviour.ending(body) for choice in choices]
        for place in self.behaviour.without_text & set(range(len(choices))):
            choices[place]["message"]["content"] = None
        tokens = len(str(prompt).split()), sum(len(text.split()) for text in texts)
        usage = {
            "prompt_tokens": tokens[0],
            "completion_tokens": tokens[1],
            "total_tokens": sum(tokens),
        }
        answer = {
            "id": "x",
            "object": "chat.completion",
            "model": body["model"],
            "created": 0,
            "choices": choices,
            "usage": usage,
        }
        self.behaviour.tokens.append(tokens)
        return 200, answer

    def _send(
        self, status: int, body: Body | None, headers: dict[str, str] | None = None, text: str = ""
    ) -> None:
        data = text.encode() if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # whoever asked may have been killed
            self.wfile.write(data)


def _choice(place: int, text: str, chat: bool, tops: dict[str, float]) -> Body:
    if chat:
        likeliest = [{"token": token, "logprob": logprob} for token, logprob in tops.items()]
        tokens = [
            {"token": word, "logprob": -0.5, "top_logprobs": likeliest} for word in text.split()
        ]
        return {
            "index": place, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, "logprobs": {"content": tokens},
        }  # fmt: skip
    return {
        "index": place, "finish_reason": "length", "text": text, "logprobs": {"token_logprobs": [-0.25, -0.5]}, "token_ids": [5, 6],
    }  # fmt: skip


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # a burst of connections waits, and is not refused

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # whoever asked may have been killed
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def openai_server(behaviour: Behaviour, port: int = 0) -> Iterator[str]:
    """Its base URL, while it runs."""
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"behaviour": behaviour}))
    server.daemon_threads = True
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":  # python -m tests.helpers.model_servers MODEL PORT
    print("serving", sys.argv[1], "on", sys.argv[2], flush=True)
    helper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"]
    )  # as a real server has
    with openai_server(Behaviour(), int(sys.argv[2])):
        time.sleep(600)
