"""Candle validation rules: a few bad rows of a symbol become holes and are reported; many stop the run with one sentence.

What is wrong with one candle is decided by `broken_rule` from that candle alone and by `Moves` from it and its past, in a file and live.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qtcore.check import ROUNDING
from qtcore.types import F8, I8, LEAST_PRICE, MOST
from research.data.clock import iso
from research.data.rows import Rows
from research.errors import DataError

FEW = 3  # bad rows that are always few; beyond it one row in a hundred

# What a run does with such rows, and what the user can do about them. Problems without a remedy never stop a run.
PROBLEMS: dict[str, tuple[str, str, str]] = {
    "conflict": (
        "share their timestamp with a row of other values",
        "stops",
        "keep one row per symbol and time (a column symbol tells them apart)",
    ),
    "unsorted": ("are earlier than the row before them", "sorted", "sort by symbol and timestamp"),
    "off_grid": ("are off the common grid of timestamps", "dropped", "round the timestamps or resample"),
    "clock": ("open after the present time, or at 1970-01-01 00:00", "dropped", "check the unit and the zone of the timestamps"),
    "incomplete": ("have some values empty, but not all", "masked", "fill or drop them"),
    "not_finite": ("have an infinite value", "masked", "correct or drop them"),
    "not_positive": ("have a price of zero or below", "masked", "correct or drop them"),
    "negative_volume": ("have a volume below zero", "masked", "correct or drop them"),
    "too_large": (f"have a price outside {LEAST_PRICE:g} to {MOST:g} or a volume above {MOST:g}", "masked", "correct or drop them"),
    "high_below_low": ("have a high below the low", "masked", "correct or drop them"),
    "outside_range": ("have an open or close outside low to high", "masked", "correct or drop them"),
    "duplicate": ("repeat another row", "dropped", ""),
    "gap": ("have no candle between the first and the last", "told", ""),
    "zero_volume": ("have no volume", "told", ""),
    "jump": ("close more than 10 % and 20 usual moves away from the close before", "told", ""),
    "split": ("close at a round multiple or fraction of the close before, as after a split that prices are not adjusted for", "told", ""),
    "frozen": ("repeat one price for 10 bars or longer", "told", ""),
    "same": ("have the closes of another symbol", "told", ""),
    "unclosed": ("close after the present time", "told", ""),
}
VALUE_RULES = ("incomplete", "not_finite", "not_positive", "negative_volume", "too_large", "high_below_low", "outside_range")


@dataclass(frozen=True)
class Issue:
    """One problem of one symbol: `count` rows of `of`, the first at `first` (ns UTC), and what a run does about it."""

    symbol: str
    problem: str
    count: int
    of: int
    first: int
    action: str  # stops, sorted, masked, dropped, or told; live, where nothing stops, what was done with the candle

    @property
    def text(self) -> str:
        """Say it in one sentence."""
        what, _, remedy = PROBLEMS[self.problem]
        line = f"{self.symbol}: {self.count:,} of {self.of:,} rows {what}, the first at {iso(self.first)}"
        if self.action != "stops":
            return f"{line}; {self.action}"
        limit = "" if self.problem == "conflict" else f"; at most {few(self.of):,} may"
        return f"{line}{limit}; {remedy}, or leave {self.symbol} out"


def few(n_rows: int) -> int:
    """How many bad rows a symbol of `n_rows` rows may have: 1 %, at least 3, but never half of them.

    >>> few(10_000), few(50), few(4)
    (100, 3, 1)
    """
    return min(max(FEW, n_rows // 100), max(n_rows // 2 - 1, 0))


class IssueCounts:
    """Issues of one history, whole or in parts: the parts of one symbol and problem are added up."""

    def __init__(self) -> None:
        self._issues: dict[tuple[str, str], Issue] = {}

    def add(self, issues: list[Issue], stop: bool = True) -> None:
        """Take the issues of one more part. Raises UserError with the first that stops a run, unless told not to."""
        for issue in issues:
            key = issue.symbol, issue.problem
            if key in self._issues:
                before = self._issues[key]
                count, first = before.count + issue.count, min(before.first, issue.first)
                issue = replace(issue, count=count, first=first, action=action_on(issue.problem, count, issue.of))
            self._issues[key] = issue
        for issue in issues if stop else []:
            if (now := self._issues[issue.symbol, issue.problem]).action == "stops":
                raise DataError(now.text)

    @property
    def issues(self) -> list[Issue]:
        """All of them, by symbol and problem in the order they came."""
        return list(self._issues.values())


def action_on(problem: str, count: int, of: int) -> str:
    """Say what a run does about `count` bad rows of a symbol's `of`: few are put right, many stop it; a conflict always does."""
    return "stops" if PROBLEMS[problem][2] and count > few(of) else PROBLEMS[problem][1]


def sort_rows(rows: Rows, counts: NDArray[np.int64]) -> tuple[Rows, list[Issue]]:
    """Sort by symbol, then time, and drop rows that repeat another to the bit. Two rows of one time that differ are a conflict.

    counts [S]: rows of each symbol in the whole source, of which `rows` may be a part.
    """
    issues: list[Issue] = []
    if np.any(np.diff(rows.code) < 0):
        rows = rows[np.argsort(rows.code, kind="stable")]
    same = np.diff(rows.code) == 0
    back = np.flatnonzero(same & (np.diff(rows.time) < 0)) + 1
    if len(back):
        issues += found("unsorted", back, rows, counts)
        rows = rows[np.lexsort((rows.time, rows.code))]
        same = np.diff(rows.code) == 0
    twice = np.flatnonzero(same & (np.diff(rows.time) == 0)) + 1
    if not len(twice):
        return rows, issues
    before, after = rows.values[:, twice - 1], rows.values[:, twice]
    differs = np.any((before != after) & ~(np.isnan(before) & np.isnan(after)), axis=0)
    issues += found("conflict", twice[differs], rows, counts) + found("duplicate", twice[~differs], rows, counts)
    keep = np.ones(rows.n, bool)
    keep[twice] = False
    return rows[keep], issues


def mask_rows(rows: Rows, counts: NDArray[np.int64]) -> tuple[Rows, list[Issue]]:
    """Blank the rows whose values cannot be a candle; counts [S] as above."""
    broken = broken_rule(rows.values[:5])
    bad = np.flatnonzero(broken)
    if not len(bad):
        return rows, []
    issues: list[Issue] = []
    for i, problem in enumerate(VALUE_RULES, 1):
        issues += found(problem, np.flatnonzero(broken == i), rows, counts)
    values = rows.values.copy()
    values[:5, bad] = np.nan
    return replace(rows, values=values), issues


def broken_rule(values: F8) -> NDArray[np.int8]:
    """Give the number of the first of `VALUE_RULES` that each row breaks, from 1, or 0. Five NaN are an explicit hole."""
    open_, high, low, close, volume = values
    empty = np.isnan(values)
    n_empty = empty.sum(axis=0)
    slack = ROUNDING * np.abs(close)
    with np.errstate(invalid="ignore"):
        tests = (
            (n_empty > 0) & (n_empty < len(values)),
            np.isinf(values).any(axis=0),
            (values[:4] <= 0.0).any(axis=0),
            volume < 0.0,
            (values[:4] < LEAST_PRICE).any(axis=0) | (values > MOST).any(axis=0),
            high < low,
            (np.maximum(open_, close) > high + slack) | (np.minimum(open_, close) < low - slack),
        )
    broken = np.zeros(values.shape[1], np.int8)
    for i in range(len(tests), 0, -1):
        broken[tests[i - 1]] = i
    return broken


def drop_rows(rows: Rows, counts: NDArray[np.int64], problem: str, bad: NDArray[np.bool_]) -> tuple[Rows, list[Issue]]:
    """Leave out the rows where `bad` [N], for they have no place on the grid; counts [S] as above."""
    if not np.any(bad):
        return rows, []
    return rows[~bad], found(problem, np.flatnonzero(bad), rows, counts)


def wrong_clock(times: I8) -> NDArray[np.bool_]:
    """Say which open times lie after the present of this machine, or are the zero of the epoch."""
    return (times > present()) | (times == 0)


def present() -> int:
    """Return the clock of this machine in ns UTC."""
    return time.time_ns()


def found(problem: str, at: np.ndarray, rows: Rows, counts: NDArray[np.int64]) -> list[Issue]:
    """One issue per symbol that has the problem in the rows `at`."""
    issues = []
    per_symbol = np.bincount(rows.code[at], minlength=len(rows.symbols))
    for s in np.flatnonzero(per_symbol):
        count, of = int(per_symbol[s]), int(counts[s])
        first = int(rows.time[at[rows.code[at] == s]].min())
        issues.append(Issue(rows.symbols[s], problem, count, of, first, action_on(problem, count, of)))
    return issues
