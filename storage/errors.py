"""Errors that a user can cause and mend: one sentence, no traceback, exit code 2."""

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path

import duckdb

RESERVE = 32 * 2**20  # bytes
_LONGEST = 400  # characters of a library's message: it may quote a value
_CREDENTIAL = re.compile(
    r"(?P<key>\b\w*(?:passw(?:or)?d|pwd|secret|token|key_id)\s*(?:=>?|:)\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&)]+)"
    r"|(?<=://)[^\s/@]*:[^\s/]*(?=@)",
    re.IGNORECASE,
)


class Remedy(Enum):
    """What would put an error right that only whoever is above knows how to ask for: the command
    line by a command or an option.
    """

    MAKE_LAKE = auto()
    OTHER_LAKE = auto()
    RUN_RECIPE = auto()
    FIND_DAMAGE = auto()
    LIST_DATASETS = auto()
    LIST_MODELS = auto()
    LIST_TABLES = auto()
    FOLLOW_ROW = auto()
    PROMOTE = auto()
    WRITE_OFF_RUN = auto()
    REPLACE_FILE = auto()
    LONGER_QUERY = auto()
    CONDITION = auto()


class UserError(ValueError):
    """Something the user can put right. The message is one sentence that says what is wrong and
    what to do, in words that hold for a program and for the command line; `remedy` lets the latter
    add how.
    """

    def __init__(self, sentence: str, remedy: Remedy | None = None) -> None:
        super().__init__(sentence)
        self.remedy = remedy


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
        known = _said_by_database(str(error), address)
        if known is None and isinstance(error, duckdb.IOException | duckdb.InvalidInputException):
            known = _damaged(address, str(error))
        if known is None:
            raise
        raise known from error
    except Exception as error:
        if _is_full(str(error)):  # as safetensors says it
            raise LakeError(_full(address)) from error
        raise


def unwritable(address: str, error: OSError) -> LakeError:
    """What to tell the user when a file of the lake cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return LakeError(_full(address))
    return LakeError(
        f"The lake at {address} cannot be written ({error.strerror}): "
        "check the directory, or choose another lake.",
        Remedy.OTHER_LAKE,
    )


def _said_by_database(text: str, address: str) -> LakeError | None:
    if _is_full(text):
        return LakeError(_full(address))
    if any(
        sign in text for sign in ("connection to server", "could not connect", "Unable to connect")
    ):
        return LakeError(
            f"The catalogue of the lake {address} cannot be reached ({one_line(text)}): "
            "is the server running, and PGPASSWORD set?"
        )
    if any(
        sign in text
        for sign in ("Permission denied", "readonly database", "unable to open database")
    ):
        return LakeError(
            f"The lake at {address} cannot be written: "
            "check the directory's permissions, or choose another lake.",
            Remedy.OTHER_LAKE,
        )
    if "read-only mode" in text:
        return LakeError(
            f"The lake at {address} is open for reading only: nothing in it was changed."
        )
    if any(
        sign in text
        for sign in ("Could not establish connection", "Could not connect", "Connection refused")
    ):
        return LakeError(
            f"The data of the lake {address} cannot be reached ({one_line(text)}): "
            "is the server running?"
        )
    if "not a database" in text:
        return LakeError(
            f"The catalogue of the lake at {address} is damaged ({one_line(text)}): "
            "put a copy back, or use another lake.",
            Remedy.OTHER_LAKE,
        )
    return None


def _is_full(text: str) -> bool:
    return any(
        sign in text
        for sign in ("No space left", "disk is full", "not enough disk", "disk I/O error")
    )


def _damaged(address: str, text: str) -> LakeError:
    return LakeError(
        f"The lake at {address} is damaged ({one_line(text)}): "
        "find out what is missing, and run the recipe again, which makes it anew.",
        Remedy.FIND_DAMAGE,
    )


def require_space(root: Path, address: str) -> None:
    """Raise LakeError when the disk has less than RESERVE left: while there is some, everybody can
    still end in good order.
    """
    if shutil.disk_usage(root).free < RESERVE:
        raise LakeError(_full(address))


def _full(address: str) -> str:
    return (
        f"The disk under {address} is full: free some space and run the same command again, it "
        "goes on where it stopped."
    )


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
