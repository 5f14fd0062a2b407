"""How long a request is asked again, and what the user is told in the end. Test: pytest
tests/tasks/sampling/engines/test_openai.py
"""

from tenacity import RetryCallState, wait_random_exponential

from dapflow.storage import UserError
from dapflow.tasks.servers.wire import CallError

_LEAST_ATTEMPTS = 3  # before the patience can be at its end
_JITTER = wait_random_exponential(multiplier=0.5, max=20)
_KEPT = "what it has answered is kept."


class OutOfPatience:
    """Whether a request has failed for so long, and more than once or twice, or the server asks for
    a longer wait than that: waiting for its turn, before and in between, is no failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._since = seconds, 0.0

    def __call__(self, state: RetryCallState) -> bool:
        ended = state.outcome_timestamp or 0.0
        if state.attempt_number == 1:
            self._since = ended
        if asked_to_wait(state) > self._seconds:
            return True
        return ended - self._since >= self._seconds and state.attempt_number >= _LEAST_ATTEMPTS


def wait(state: RetryCallState) -> float:
    """As long as the server asks for, else longer each time; by chance, so that many do not come
    back at once.
    """
    jitter: float = _JITTER(state)
    return jitter + asked_to_wait(state)


def asked_to_wait(state: RetryCallState) -> float:
    """Seconds that the server asked to be left alone."""
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after if isinstance(error, CallError) else 0.0


def end_of_patience(error: Exception, server: str, model: str, minutes: float) -> UserError:
    """What to tell the user when the server cannot be worked with, in its own words."""
    if not isinstance(error, CallError):
        return _failed(str(error), server, minutes)
    if error.status in (401, 403):
        return UserError(f"{server} refuses the key ({error.told}): set OPENAI_API_KEY.")
    if error.status == 404:
        return UserError(
            f"{server} has no model {model!r}, or is not the whole address, with its /v1 "
            f"({error.said.words or error})."
        )
    if error.standing == "account":
        return UserError(
            f"{server} answers nobody with this key ({error.told}): see to the account or the "
            f"server, then run again; {_KEPT}"
        )
    if error.retry_after > 60 * minutes:
        asked = f"{server} asks to be left alone for {duration(error.retry_after)} ({error.told})"
        return UserError(
            f"{asked}, which is longer than patience_minutes={minutes:g}: run again then; {_KEPT}"
        )
    return _failed(error.told, server, minutes)


def _failed(why: str, server: str, minutes: float) -> UserError:
    return UserError(
        f"{server} has failed for {minutes:g} minutes ({why}): look at the server, then run "
        f"again; {_KEPT}"
    )


def duration(seconds: float) -> str:
    """In the unit that one says it in."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
