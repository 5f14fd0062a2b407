"""Errors that a user can cause and mend: one sentence, no traceback, exit code 2."""


class UserError(ValueError):
    """Something the user can put right. The message is one sentence that says what is wrong and what to do."""


class LakeError(UserError):
    """The lake cannot do what was asked: not writable, full, damaged, or made by a newer version."""
