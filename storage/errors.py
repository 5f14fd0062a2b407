"""Errors that a user can cause and mend: one sentence, no traceback, exit code 2."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

RESERVE = 32 * 2**20  # bytes
_LONGEST = 400  # characters of a library's message: it may quote a value
_CREDENTIAL = re.compile(
    r"(?P<key>\b\w*(?:passw(?:or)?d|pwd|secret|token|key_id)\s*(?:=>?|:)\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&)]+)"
    r"|(?<=://)[^\s/@]*:[^\s/]*(?=@)",
    re.IGNORECASE,
)


class UserError(ValueError):
    """Something the user can put right. The message is one sentence that says what is wrong and
    what to do.
    """


class NothingToLearnError(UserError):
    """Judging left nothing of what an iteration has sampled that could be trained on. The same
    again ends the same; other prompts need not.
    """


class LakeError(UserError):
    """The lake cannot do what was asked: not writable, full, damaged, or made by a newer version."""


@contextmanager
def lake_errors(address: str) -> Iterator[None]:
    """Turn what the disk and the database say about the lake at `address` into a sentence for the
    user.
    """
    try:
        yield
    except LakeError:
        raise
    except (RuntimeError, duckdb.InterruptException) as error:
        if (
            "Interrupted" in str(error).title()
        ):  # how DuckDB reports a Ctrl-C in the middle of a query
            raise KeyboardInterrupt from error
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise unwritable(address, error) from error
        raise
    except duckdb.Error as error:
        sentence = _sentence(str(error), address)
        if sentence is None and isinstance(
            error, duckdb.IOException | duckdb.InvalidInputException
        ):
            sentence = _damaged(address, str(error))
        if sentence is None:
            raise
        raise LakeError(sentence) from error
    except Exception as error:
        if _is_full(str(error)):  # as safetensors says it
            raise LakeError(_full(address)) from error
        raise


def unwritable(address: str, error: OSError) -> LakeError:
    """What to tell the user when a file of the lake cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LakeError(_full(address))
    return LakeError(
        f"The lake at {address} cannot be written ({error.strerror}): check the directory, or choose another with --lake."
    )


def _sentence(text: str, address: str) -> str | None:
    if _is_full(text):
        return _full(address)
    if any(
        sign in text for sign in ("connection to server", "could not connect", "Unable to connect")
    ):
        return f"The catalogue of the lake {address} cannot be reached ({one_line(text)}): is the server running, and PGPASSWORD set?"
    if any(
        sign in text
        for sign in ("Permission denied", "readonly database", "unable to open database")
    ):
        return f"The lake at {address} cannot be written: check the directory's permissions, or choose another with --lake."
    if "read-only mode" in text:
        return f"The lake at {address} is open for reading only: nothing in it was changed."
    if any(
        sign in text
        for sign in ("Could not establish connection", "Could not connect", "Connection refused")
    ):
        return f"The data of the lake {address} cannot be reached ({one_line(text)}): is the server running?"
    if "not a database" in text:
        return f"The catalogue of the lake at {address} is damaged ({one_line(text)}): put a copy back, or use another lake with --lake."
    return None


def _is_full(text: str) -> bool:
    return any(
        sign in text
        for sign in ("No space left", "disk is full", "not enough disk", "disk I/O error")
    )


def _damaged(address: str, text: str) -> str:
    return (
        f"The lake at {address} is damaged ({one_line(text)}): `dapflow verify` names what is missing, "
        "and running the recipe again makes it anew."
    )


def require_space(root: Path, address: str) -> None:
    """Raise LakeError when the disk has less than RESERVE left: while there is some, everybody can
    still end in good order.
    """
    if shutil.disk_usage(root).free < RESERVE:
        raise LakeError(_full(address))


def _full(address: str) -> str:
    return f"The disk under {address} is full: free some space and run the same command again, it goes on where it stopped."


def one_line(text: str) -> str:
    """The first line of a library's message, not too long, without passwords that it may quote from
    an address.
    """
    line = text.strip().splitlines()[0] if text.strip() else "no message"
    line = _CREDENTIAL.sub(lambda match: f"{match['key'] or ''}***", line)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def interrupted(error: BaseException | None) -> bool:
    """Whether it is a Ctrl-C, or what a library has made of one that it was handling."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt) or interrupted(error.__context__)
    )
