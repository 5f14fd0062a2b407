"""An LLM judge against a server with a fixed latency: calls a second beside what concurrency /
latency allows; and looking up verdicts.

Run: python -m tests.benchmarks.speed.judging [--concurrency 64] [--latency 1.0] [--known 100000]   (about two minutes; the server is a process
of its own on the same machine)
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection

from dapflow.storage import Lake
from dapflow.storage.ledger import Cost, Ledger
from dapflow.tasks.judging.asking.ask import llm_judge
from dapflow.tasks.judging.asking.questions import comparison_bodies, request_key
from dapflow.tasks.judging.judges.llm import LLM
from dapflow.tasks.servers.client import Endpoint
from tests.helpers.judging import matches

_ROUNDS = 20  # of as many calls as are under way at once
_MESSAGE = {"role": "assistant", "content": "1"}
_ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "model": "judge",
    "created": 0,
    "choices": [{"index": 0, "finish_reason": "stop", "message": _MESSAGE}],
}


def main(concurrency: int, latency: float, known: int) -> None:
    """Print one line for each figure."""
    ours, its = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(
        target=serve, args=(its, latency), daemon=True
    )
    server.start()
    by = LLM(
        endpoint=Endpoint(
            base_url=f"http://127.0.0.1:{ours.recv()}/v1", model="judge", concurrency=concurrency
        )
    )
    with tempfile.TemporaryDirectory() as address, Lake(address) as lake:
        calls = _ROUNDS * concurrency
        with llm_judge(lake, "v1", by) as judge:
            began = time.perf_counter()
            list(judge.compare(matches(calls // 2)))
            rate = calls / (time.perf_counter() - began)
        print(
            f"{calls} calls, {concurrency} at once, {latency:g} s each: {rate:.1f} a second, {rate * latency / concurrency:.1%} of the most",
            flush=True,
        )
        some, template = matches(known // 2, words=60), by.prompt_template()
        with Ledger(lake, "v2") as ledger:
            for body in itertools.chain.from_iterable(
                comparison_bodies(by, template, match) for match in some
            ):
                ledger.ended(
                    ledger.sent(request_key(by, body), "judge", {}, 1, Cost()),
                    json.dumps(_ANSWER),
                    None,
                    Cost(),
                    0.0,
                )
        keys = [
            request_key(by, body)
            for match in some
            for body in comparison_bodies(by, template, match)
        ]
        with Ledger(lake, "v3") as ledger:
            began = time.perf_counter()
            assert len(ledger.find(keys)) == len(keys)
            print(
                f"{len(keys):,} answers looked up in {time.perf_counter() - began:.2f} s",
                flush=True,
            )
        with llm_judge(lake, "v4", by) as judge:
            began = time.perf_counter()
            list(judge.compare(some))
            print(
                f"the same as {len(some):,} verdicts, prompts filled, hashed, looked up and read: {time.perf_counter() - began:.2f} s"
            )
    server.kill()


def serve(ready: Connection, latency: float) -> None:
    """A server that answers every request after the same time."""
    body = json.dumps(_ANSWER).encode()
    response = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
        + str(len(body)).encode()
        + b"\r\n\r\n"
        + body
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _until_blank(reader):
            length = next(
                int(line.split(b":")[1])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            await asyncio.sleep(latency)
            writer.write(response)

    async def run() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
        ready.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()

    asyncio.run(run())


async def _until_blank(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--known", type=int, default=100_000)
    arguments = parser.parse_args()
    main(arguments.concurrency, arguments.latency, arguments.known)
