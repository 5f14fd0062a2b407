"""Why a training did not begin, where the reason is its data."""

from dapflow.storage import UserError


class NothingToLearnError(UserError):
    """Judging left nothing of what an iteration has sampled that could be trained on. The same
    again ends the same; other prompts need not.
    """
