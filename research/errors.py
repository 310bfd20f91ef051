"""What is the user's mistake, and what is ours? `UserError` is the user's: one sentence, exit code 2, no traceback."""

from qtcore.types import InputError


class UserError(InputError):
    """A mistake of the user; the text names the thing, the rule, the value and the remedy."""
