"""Codes of foreign files: the actions, shares and outcomes that columns of words or numbers mean.

A column is read as a whole, and only where it can mean one thing alone. What was assumed is noted; what stays open is refused with the
forms that are read.

| column     | read                                                                                                            |
| ---------- | --------------------------------------------------------------------------------------------------------------- |
| action     | words in any case: buy, long, strong_buy; sell, short, strong_sell; hold, flat, neutral                          |
|            | numbers 0 SELL, 1 HOLD, 2 BUY, -1 absent: the column holds a 2                                                   |
|            | numbers -1 SELL, 0 HOLD, 1 BUY: it holds -1 and 1, nothing else but 0, and a confidence beside every -1          |
|            | other columns of 0, 1 and -1: as the row's probabilities prove, or as the file's other models are coded          |
| share      | fractions in [0, 1]; per cent where all are 0 or above 1, up to 100, or end in %                                 |
| outcome    | win, loss, breakeven in any case; won, lost; true, false; yes, no; 1, 0, -1                                      |
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Action
from research.errors import ModelError

ABSENT, UNKNOWN, NUMBER = -1, -2, -3
MOST_ODD = 0.2  # share of the values that may be none: they do not vote; more are a way of writing that is not known
WORDS = {
    "BUY": 2, "LONG": 2, "STRONG_BUY": 2, "SELL": 0, "SHORT": 0, "STRONG_SELL": 0, "HOLD": 1, "FLAT": 1, "NEUTRAL": 1,
    "": ABSENT, "NONE": ABSENT, "NAN": ABSENT, "NULL": ABSENT, "<NA>": ABSENT, "ABSENT": ABSENT,
}  # fmt: skip
CODINGS = {"codes": {-1.0: ABSENT, 0.0: 0, 1.0: 1, 2.0: 2}, "sides": {-1.0: 0, 0.0: 1, 1.0: 2}}
FORMS = (
    "write buy, hold, sell (or long, flat, short), or the numbers 0 SELL, 1 HOLD, 2 BUY with a 2 among them, or -1 SELL, 0 HOLD, 1 BUY "
    "with both -1 and 1"
)
EMPTY = ["", "NONE", "NAN", "NULL", "<NA>", "OPEN", "PENDING"]  # outcomes that are not known yet
OUTCOMES = {
    "win": ("win", "won", "w", "true", "t", "yes", "y", "1", "1.0", "profit"),
    "loss": ("loss", "lost", "lose", "l", "false", "f", "no", "n", "0", "0.0", "-1", "-1.0"),
    "breakeven": ("breakeven", "break_even", "even"),
}
OUTCOME_OF = {word: name for name, words in OUTCOMES.items() for word in words}


@dataclass(frozen=True)
class ActionColumn:
    """A column of actions, understood as far as it goes by itself.

    code [k]: of each row: an action, ABSENT, UNKNOWN, or NUMBER, whose meaning `coding` settles. number [k]: NaN where it is none.
    coding: a key of `CODINGS`, None where numbers stay open. notes: what was assumed of words.
    """

    name: str
    code: NDArray[np.int64]
    number: F8
    coding: str | None
    notes: tuple[str, ...]

    def actions(self, coding: str | None = None) -> NDArray[np.int64]:
        """Return the action of each row, ABSENT or UNKNOWN. Raises UserError where numbers have no meaning; coding: of other columns."""
        is_number = self.code == NUMBER
        if not is_number.any():
            return self.code
        if (coding := self.coding or coding) is None:
            held = ", ".join(f"{value:g}" for value in np.unique(self.number[is_number])[:6])
            raise ModelError(f"{self.name} must say which number is which action, was {held} alone, which may mean several; {FORMS}")
        out = self.code.copy()
        meaning = np.array([CODINGS[coding].get(value, UNKNOWN) for value in (-1.0, 0.0, 1.0, 2.0)])
        out[is_number] = meaning[self.number[is_number].astype(np.int64) + 1]
        return out


def read_actions(values: NDArray, name: str, is_silent: Any = False, likely: Any = ABSENT) -> ActionColumn:
    """Read a column of actions [k].

    is_silent [k]: rows without a confidence. likely [k]: class of the largest probability, ABSENT where there is none. Raises UserError
    where many values are no action, where words and numbers are mixed, and on numbers that no coding has.
    """
    rows, distinct = _factorise(values)
    words = [_word(value) for value in distinct]
    found = np.array([WORDS.get(word, UNKNOWN) for word in words], np.int64)
    numeric = np.array([np.nan if code != UNKNOWN else _number(value) for code, value in zip(found, distinct)], np.float64)
    found[~np.isnan(numeric)] = NUMBER
    code, number = found[rows], numeric[rows]
    spoken = code[code != ABSENT]
    if np.sum(spoken == UNKNOWN) > MOST_ODD * len(spoken):
        odd = [word for word, code in zip(words, found) if code == UNKNOWN]
        where = f" in {np.sum(spoken == UNKNOWN):,} of {len(spoken):,} rows" if np.any(spoken != UNKNOWN) else ""
        raise ModelError(f"{name} must hold actions, was {_some(odd)}{where}; {FORMS}")
    if (spoken == NUMBER).any() and (spoken >= 0).any():
        raise ModelError(f"{name} must hold words or numbers, was a mix ({_some(words)}); {FORMS}")
    held = set(numeric[~np.isnan(numeric)].tolist())
    if foreign := sorted(held - set(CODINGS["codes"])):
        raise ModelError(f"{name} must hold the numbers of one coding, was with {foreign[0]:g}; {FORMS}")
    other = {word: Action(code).name for word, code in zip(words, found) if code >= 0 and word not in ("BUY", "SELL", "HOLD")}
    notes = [f"{name}: {', '.join(f'{word} is read as {action}' for word, action in sorted(other.items()))}"] if other else []
    if not held:
        return ActionColumn(name, code, number, None, tuple(notes))
    coding = _coding(held, number, np.broadcast_to(is_silent, number.shape), np.broadcast_to(likely, number.shape))
    if coding == "sides":
        notes.append(f"{name} holds {', '.join(f'{x:g}' for x in sorted(held))}: read as -1 SELL, 0 HOLD, 1 BUY")
    return ActionColumn(name, code, number, coding, tuple(notes))


def _coding(held: set[float], number: F8, is_silent: NDArray[np.bool_], likely: NDArray[np.integer]) -> str | None:
    minus = number == -1.0
    if 2.0 in held or (held == {-1.0} and is_silent[minus].all()):
        return "codes"
    if {-1.0, 1.0} <= held and not is_silent[minus].any():
        return "sides"
    shown = (likely >= 0) & ~np.isnan(number)
    meant = {name: np.array([codes[value] for value in number[shown]]) for name, codes in CODINGS.items()}
    fits = [name for name, said in meant.items() if (said >= 0).any() and (said == likely[shown])[said >= 0].all()]
    return fits[0] if len(fits) == 1 else None


def agreed_coding(columns: Iterable[ActionColumn]) -> str | None:
    """Return the coding of the columns that show theirs, None where these differ or there is none."""
    known = {column.coding for column in columns if column.coding is not None}
    return known.pop() if len(known) == 1 else None


def read_shares(values: NDArray, name: str, counts: NDArray[np.bool_], notes: list[str]) -> F8:
    """Read fractions [k], NaN where empty or no number; per cent become fractions, and `notes` says so.

    counts [k]: rows whose value matters. Raises UserError where many of these are neither. A few outside [0, 1] stay as they are.
    """
    numbers, is_percent = signed_numbers(values, name, counts)
    rows = np.flatnonzero(counts & ~np.isnan(numbers))
    given = numbers[rows]
    outside, hundredths = (given < 0.0) | (given > 1.0), (given == 0.0) | ((given > 1.0) & (given <= 100.0))
    if is_percent or (outside.any() and hundredths.all()):
        notes.append(f"{name} is read as per cent")
        return numbers / 100.0
    if int(outside.sum()) > MOST_ODD * len(given):
        odd = ~hundredths if 2 * int(hundredths.sum()) > len(given) else outside  # what is not written as most of them are
        text = f"from {given.min():g} to {given.max():g}, {given[odd][0]:g} in row {rows[odd][0] + 1}"
        more = f" and {int(odd.sum()) - 1:,} others like it" if odd.sum() > 1 else ""
        raise ModelError(f"{name} must be fractions in [0, 1], or per cent above 1 up to 100, was {text}{more}; write fractions")
    return numbers


def read_outcomes(values: NDArray, name: str) -> NDArray:
    """Read a column of outcomes [k]: win, loss, breakeven, or "" where it says none of these.

    Raises UserError where many values do not: one side under an unknown word would never be learnt.
    """
    rows, distinct = _factorise(values)
    read = np.array([OUTCOME_OF.get(_word(value).lower(), "") for value in distinct], object)
    words = np.array([_word(value) for value in distinct], object)
    is_odd = (read == "") & ~np.isin(words, EMPTY)
    n_odd = int(is_odd[rows].sum())
    if len(rows) and (not any(read) or n_odd > MOST_ODD * len(rows)):
        where = f" in {n_odd:,} of {len(rows):,} rows" if any(read) else ""
        shown = _some(words[is_odd] if n_odd else words)
        raise ModelError(f"{name} must be win, loss or breakeven (or true and false, yes and no, 1 and 0), was {shown}{where}")
    return read[rows]


def read_numbers(values: NDArray) -> F8:
    """Read numbers [k], NaN where empty or no number."""
    import pandas as pd

    return np.asarray(pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(np.float64, na_value=np.nan))


def plain_numbers(values: NDArray) -> tuple[F8, bool]:
    """Return numbers [k], NaN where empty or no number, and whether all of them were written with a per cent sign."""
    numbers = read_numbers(values)
    if values.dtype != object or not np.isnan(numbers).any():
        return numbers, False
    texts = np.array([value.strip() if isinstance(value, str) else "" for value in values], object)
    signed = np.array([text.endswith("%") for text in texts])
    if not signed.any() or not np.isnan(numbers[~signed]).all():
        return numbers, False
    return read_numbers(np.array([text.removesuffix("%") for text in texts], object)), True


def signed_numbers(values: NDArray, name: str, counts: Any = True) -> tuple[F8, bool]:
    """Return what `plain_numbers` does. Raises UserError where many of the values that count are words."""
    numbers, is_percent = plain_numbers(values)
    if values.dtype != object or not np.isnan(numbers).any():
        return numbers, is_percent
    spoken = counts & np.array([WORDS.get(_word(value)) != ABSENT for value in values])
    odd = np.flatnonzero(spoken & np.isnan(numbers))
    if len(odd) > MOST_ODD * int(spoken.sum()):
        text = f"{values[odd[0]]!r} in row {odd[0] + 1}" + (f" and others in {len(odd) - 1:,} rows" if len(odd) > 1 else "")
        raise ModelError(f"{name} must hold numbers such as 0.7, or 70% in every row, was {text}")
    return numbers, is_percent


def _factorise(values: NDArray) -> tuple[NDArray[np.int64], NDArray]:
    """Return the number of each row's value and the different values: a column has few."""
    import pandas as pd

    try:
        codes, distinct = pd.factorize(np.asarray(values), use_na_sentinel=False)
    except TypeError as error:
        raise ModelError(f"a column of codes must hold words or numbers, was with lists or records ({error})") from error
    return codes.astype(np.int64), distinct


def _word(value: Any) -> str:
    text = "" if value is None or value != value else str(value).strip().upper()
    return text.rpartition(".")[2].replace(" ", "_").replace("-", "_") if text[:1].isalpha() else text  # an enum writes Action.BUY


def _number(value: Any) -> float:
    if isinstance(value, bool | np.bool_):
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _some(words: Iterable[str]) -> str:
    shown = [repr(word) for word in dict.fromkeys(words)]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "")
