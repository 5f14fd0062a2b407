"""The side of the vllm engine that has vllm: a model in memory that answers requests and takes new
weights.

Runs in this process where vllm is installed beside this package, else as a script in an environment
of its own, told what to do in lines of JSON on its input: so it imports nothing but vllm. Test:
make test-vllm
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any


class Worker:
    """A model under vllm. What comes in and goes out is JSON."""

    def __init__(self, model: str, options: dict[str, Any]) -> None:
        from vllm import LLM  # pyright: ignore[reportAttributeAccessIssue]

        self._llm: Any = LLM(
            model=model, enable_prefix_caching=True, disable_log_stats=True, **options
        )
        self._base = model
        self._adapter: Any = None
        self._adapters = 0

    def weights(self, model: str) -> None:
        """Take the weights in a model directory of the same shape."""
        self._adapter = None
        if model != self._base:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": model})
            self._llm.reset_prefix_cache()
            self._base = model

    def adapter(self, path: str) -> None:
        """Answer with a LoRA adapter on top of the weights."""
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        self._adapters += 1
        self._adapter = LoRARequest(path, self._adapters, path)

    def forget(self) -> None:
        """Let go of the prefixes it has kept."""
        self._llm.reset_prefix_cache()

    def probe(self, token_ids: list[int]) -> list[float]:
        """log p of each token after the first, given those before it."""
        from vllm import SamplingParams  # pyright: ignore[reportAttributeAccessIssue]

        params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
        [answer] = self._llm.generate(
            {"prompt_token_ids": token_ids}, params, use_tqdm=False, lora_request=self._adapter
        )
        places = zip(token_ids[1:], answer.prompt_logprobs[1:], strict=True)
        return [found[token].logprob for token, found in places]

    def generate(
        self, requests: list[dict[str, Any]], params: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Answers as they finish: key, text, token_ids, logprobs, finish_reason."""
        from vllm import SamplingParams  # pyright: ignore[reportAttributeAccessIssue]

        engine = self._llm.llm_engine
        try:
            for request in requests:
                sampling = SamplingParams(**params, seed=request["seed"], logprobs=0)
                prompt = {"prompt_token_ids": request["token_ids"]}
                engine.add_request(request["key"], prompt, sampling, lora_request=self._adapter)
            while engine.has_unfinished_requests():
                for answer in engine.step():
                    if answer.finished:
                        yield self._plain(answer)
        finally:
            engine.abort_request([request["key"] for request in requests])

    @staticmethod
    def _plain(answer: Any) -> dict[str, Any]:
        [output] = answer.outputs
        logprobs = [
            found[token].logprob
            for token, found in zip(output.token_ids, output.logprobs, strict=True)
        ]
        return {
            "key": answer.request_id,
            "text": output.text,
            "token_ids": list(output.token_ids),
            "logprobs": logprobs,
            "finish_reason": output.finish_reason,
        }


def main() -> None:
    """Serve one Worker: a line in, lines out, the last of which has `ok` or `error`. Ends with its
    input.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what vllm prints is not an answer
    worker: Any = None
    for line in sys.stdin:
        call = json.loads(line)
        try:
            if call["do"] == "load":
                worker, found = Worker(**call["with"]), None
            elif call["do"] == "generate":
                for answer in worker.generate(**call["with"]):
                    print(
                        json.dumps({"call": call["call"], "answer": answer}),
                        file=answers,
                        flush=True,
                    )
                found = None
            else:
                found = getattr(worker, call["do"])(**call["with"])
            print(json.dumps({"call": call["call"], "ok": found}), file=answers, flush=True)
        except Exception as error:
            print(
                json.dumps({"call": call["call"], "error": f"{type(error).__name__}: {error}"}),
                file=answers,
                flush=True,
            )


if __name__ == "__main__":
    main()
