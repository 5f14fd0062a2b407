"""The engine behind an OpenAI-compatible server: one request a prompt, for all its completions,
many under way at once.

Test: pytest tests/tasks/sampling/engines/test_openai.py
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from dapflow.tasks.models.chat import transcript, turns_of
from dapflow.tasks.sampling.engines.base import Completion, Request, Sampling
from dapflow.tasks.sampling.engines.thoughts import ALL_THOUGHT, NO_ANSWER, left_out
from dapflow.tasks.servers.client import Client, Endpoint
from dapflow.tasks.servers.message import message_of, split_thought
from dapflow.tasks.servers.refusal import Refusal, whole
from dapflow.tasks.servers.wire import UnusableAnswerError
from dapflow.tasks.step.progress import Say

_CHARACTERS_PER_TOKEN = 4  # for the limit on tokens only
_REMEDY = "look at sampling.max_tokens and at how the model is served"
_CUT = ("length", "max_tokens")
_WHOLE = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "")  # "": not told


@dataclass(frozen=True, kw_only=True)
class NoAnswer(Refusal):
    """Completions of which none is an answer, all for the same reason."""

    WHOLLY: ClassVar[str] = "gives no answer that counts"
    completions: tuple[Completion, ...]


class OpenAIEngine:
    """An Engine over a server. Its completions have token ids and log-probabilities where the
    server gives them.
    """

    rows_per_chunk, together = 1, True

    def __init__(self, endpoint: Endpoint, say: Say = lambda sentence: None) -> None:
        self._client: Client[str] = Client(endpoint, say=say, asker="sampling")
        self._endpoint = endpoint

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def report(self) -> str:
        """One sentence on what went wrong on the way; empty where nothing did."""
        return self._client.report()

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Completion]:
        """Every completion of every request, as they come. What the server refuses comes as
        refused, with its reason.

        Raises UserError when the server has refused the first few and answered none: then it is not
        the prompts.
        """
        with closing(
            self._answers(requests, sampling, on_tokens)
        ) as answers:  # what is under way ends with whoever asked
            yield from answers

    def _answers(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        on_tokens: Callable[[int], None] | None,
    ) -> Generator[Completion]:
        left = {request.prompt_id: request for request in requests if request.seeds}
        got: dict[str, int] = dict.fromkeys(left, 0)
        while left:
            asked = [
                (request.prompt_id, self._body(request, sampling, got[request.prompt_id]))
                for request in left.values()
            ]
            for prompt_id, answer in self._client.each(asked, self._read, self._tokens):
                request, first = left[prompt_id], got[prompt_id]
                wanted = len(request.seeds) - first
                found = _completions(answer, wanted)
                for place, one in enumerate(found):
                    if on_tokens:
                        on_tokens(len(one.token_ids) or len(one.text) // _CHARACTERS_PER_TOKEN)
                    yield replace(one, prompt_id=prompt_id, sample=first + place)
                got[prompt_id] += len(found)
            left = {
                name: request for name, request in left.items() if got[name] < len(request.seeds)
            }  # some servers give one at a time

    def _body(self, request: Request, sampling: Sampling, first: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "n": len(request.seeds) - first,
            "seed": request.seeds[first] % 2**31,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if self._endpoint.api == "chat":
            turns = (
                [{"role": "system", "content": sampling.system}]
                if sampling.system is not None
                else []
            )
            body |= {
                "messages": [*turns, *turns_of(request.prompt, request.earlier)],
                "logprobs": True,
            }
        else:
            said = transcript(request.prompt, request.earlier)
            text = said if sampling.system is None else f"{sampling.system}\n{said}"
            body |= {"prompt": list(request.prompt_token_ids) or text, "logprobs": 0}
        return body | _further(sampling, self._endpoint)

    def _read(self, answer: Any) -> "list[Completion] | NoAnswer":
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not choices:
            raise UnusableAnswerError("no choice in the answer")
        try:
            completions = [self._completion(choice) for choice in choices]
        except (KeyError, TypeError, AttributeError) as error:
            raise UnusableAnswerError("no text in the answer") from error
        notes = {
            completion.note for completion in completions if completion.finish_reason == "refused"
        }
        if len(notes) == 1 and all(
            completion.finish_reason == "refused" for completion in completions
        ):
            return NoAnswer(
                reason=notes.pop() or "", remedy=_REMEDY, completions=tuple(completions)
            )
        return completions

    def _completion(self, choice: Any) -> Completion:
        text, thought, as_it_came = self._said(choice)
        ended = str(choice.get("finish_reason") or "").lower()
        if ended == "content_filter":
            return _refused("withheld by the server's content filter")
        if thought and not text:
            return _refused(ALL_THOUGHT if ended in _CUT else NO_ANSWER)
        if text is None or ended not in (
            *_CUT,
            *_WHOLE,
        ):  # half an answer, or none: not one of the policy's
            return _refused(
                "no text in the answer" if text is None else f"the answer ended with {ended}"
            )
        return Completion(
            prompt_id="",
            sample=0,
            text=whole(text),
            token_ids=_token_ids(choice.get("token_ids"))
            if as_it_came
            else [],  # a thought's tokens are not the answer's
            logprobs=_logprobs(choice.get("logprobs")) if as_it_came else [],
            finish_reason="length" if ended in _CUT else "stop",
            note=None if as_it_came else left_out(thought),
        )

    def _said(self, choice: Any) -> tuple[str | None, str, bool]:
        """The answer, None where there is none; what the model thought before it; and whether the
        tokens are those of the answer.
        """
        if self._endpoint.api == "chat":
            message = message_of(choice["message"])
            content = choice["message"].get("content")
            return (
                message.answer,
                message.thought,
                not message.thought and (content == message.answer or isinstance(content, list)),
            )
        if choice["text"] is None:
            return None, "", True
        thought, answer = split_thought(choice["text"])
        return answer, thought, answer == choice["text"]

    def _tokens(self, body: Mapping[str, Any]) -> int:
        said = body.get("prompt") or "".join(turn["content"] for turn in body["messages"])
        return (len(said) if isinstance(said, list) else len(said) // _CHARACTERS_PER_TOKEN) + body[
            "n"
        ] * body["max_tokens"]


def _further(sampling: Sampling, endpoint: Endpoint) -> dict[str, Any]:
    """What OpenAI's own interface does not have: sent only where it is asked for."""
    asked: dict[str, Any] = {}
    if sampling.top_k:
        asked["top_k"] = sampling.top_k
    if sampling.min_p:
        asked["min_p"] = sampling.min_p
    if sampling.repetition_penalty != 1:
        asked["repetition_penalty"] = sampling.repetition_penalty
    if sampling.chat_template is not None:
        asked["chat_template"] = sampling.chat_template
    if endpoint.token_ids:
        asked["return_token_ids"] = True
    return asked


def _logprobs(given: Any) -> list[float]:
    """Of each token; none at all where the server does not tell every one, as a number."""
    told: Any = None
    if isinstance(given, Mapping):
        chat = given.get("content")
        told = (
            given.get("token_logprobs")
            if chat is None
            else [isinstance(token, Mapping) and token.get("logprob") for token in chat]
        )
    numbers = isinstance(told, list) and all(
        type(logprob) in (int, float) and math.isfinite(logprob) for logprob in told
    )
    return told if numbers else []


def _token_ids(given: Any) -> list[int]:
    return given if isinstance(given, list) and all(type(token) is int for token in given) else []


def _completions(answer: list[Completion] | Refusal, wanted: int) -> list[Completion]:
    """Of an answer, as many as are wanted; a refusal is one of all of them."""
    if isinstance(answer, NoAnswer):
        return list(answer.completions[:wanted])
    return [_refused(answer.reason)] * wanted if isinstance(answer, Refusal) else answer[:wanted]


def _refused(reason: str) -> Completion:
    return Completion(
        prompt_id="",
        sample=0,
        text="",
        token_ids=[],
        logprobs=[],
        finish_reason="refused",
        note=reason,
    )
