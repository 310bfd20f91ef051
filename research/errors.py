"""User errors, and text that is safe to show. `UserError` is the user's: one sentence, exit code 2, no traceback.

What users, files and exchanges call things is shown in terminals, logs and alerts. `visible` is the one way there: nothing that a
terminal obeys, and nothing that makes text look like another, gets through as it is.
"""

import importlib.util
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from qtcore.types import InputError

EXTRAS = {"torch": "neural", "safetensors": "neural", "ccxt": "exchange", "optuna": "search", "ray": "ray", "vectorbt": "vectorbt"}


def visible(text: object, keep: str = "") -> str:
    r"""Return `text` with every character that is no letter, sign or space written as an escape, in one line; `keep` lists exceptions.

    Escaped are controls (ESC, line breaks, C1), marks of direction and other characters without a shape, line and paragraph separators,
    half surrogates (bytes of a file's name that are no UTF-8), and what Unicode has not assigned.

    >>> print(visible("BTC\x1b[31m \u202e \n"), visible("Z\u00fcrich") == "Z\u00fcrich")
    BTC\x1b[31m \u202e \n True
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else escaped(c) for c in whole)


def escaped(character: str) -> str:
    """Return the escape of one character as Python writes it."""
    return character.encode("unicode_escape").decode()


def several(n: int, things: str) -> str:
    """Write a number before its noun, which is given in the plural: 1 bar, 1,500 bars."""
    return f"{n:,} {things.removesuffix('s') if n == 1 else things}"


def ordinal(n: float) -> str:
    """Write a whole number as a place: 1st, 33rd, 67th."""
    whole = round(n)
    return f"{whole}{'th' if 10 < whole % 100 < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(whole % 10, 'th')}"


class UserError(InputError):
    """A mistake of the user; the text names the thing, the rule, the value and the remedy, and is safe to show."""

    def __init__(self, text: object = "") -> None:
        """Keep the text as it is shown."""
        super().__init__(visible(text))


class ConfigError(UserError):
    """A flag, a setting, or a file of them; a parameter of the chain that `qtcore` itself refuses is its InputError, above UserError."""


class DataError(UserError):
    """Candles, and what comes with them: files, frames, exchanges."""


class ModelError(UserError):
    """Models and predictions: training, base models, meta layers, the registry."""


class ProofError(UserError):
    """What cannot be proved or reproduced as asked. A check that fails is no error: `verify` says it in its result."""


def need(library: str, wish: str) -> None:
    """Raise UserError unless a library of EXTRAS, which says the extra of each, is installed. wish: what needs it, as users call it."""
    if importlib.util.find_spec(library) is None:
        raise UserError(f"{wish} needs the {library} library, was not installed; pip install 'qtcore[{EXTRAS[library]}]'")


@contextmanager
def refusing(kind: type[UserError]) -> Iterator[None]:
    """Turn what qtcore refuses inside into an error of the user's of this kind, with the same words."""
    try:
        yield
    except UserError:
        raise
    except InputError as error:
        raise kind(error) from error
