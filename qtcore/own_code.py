"""Code of the user's own, called: whatever it raises becomes a sentence that names it; an interrupt alone passes."""

from collections.abc import Iterator
from contextlib import contextmanager

from qtcore.types import InputError


class OwnCodeError(InputError):
    """What code of the user's own raised; `raised` is that alone, its kind and text."""

    def __init__(self, rule: str, error: BaseException) -> None:
        """Say which rule was broken, and by what."""
        self.raised = f"raised {said(error)}"
        super().__init__(f"{rule}, {self.raised}; correct it")


@contextmanager
def own_code(rule: str) -> Iterator[None]:
    """Run code of the user's own. rule: what it must do, "the feature x must return an array". Raises OwnCodeError for whatever it raises.

    >>> with own_code("the feature x must return an array"):
    ...     raise SystemExit(0)
    Traceback (most recent call last):
    qtcore.own_code.OwnCodeError: the feature x must return an array, raised SystemExit: 0; correct it
    """
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a stranger's code: it may raise anything, and an exit would end the command as if all were well
        raise OwnCodeError(rule, error) from error


def said(error: BaseException) -> str:
    """Name an error's kind, with its text where it has one: an own error may fail to give it."""
    if isinstance(error, OwnCodeError):
        return error.raised.removeprefix("raised ")
    try:
        text = str(error)
    except Exception:  # the error is a stranger's code
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def shown(value: object) -> str:
    """Write a value of the user's own as Python does, shortened; by its kind where it cannot be written."""
    try:
        return f"{value!r:.60}"
    except Exception:  # the value is a stranger's code
        return f"of the kind {type(value).__name__}"
