"""Tallies of the trial ledger: how many trials a data set holds and how far their ratios lie apart, without reading a million rows.

The database adds each new row to the tally of its data set and of what the base models said, `votes`, by a trigger. Ratios are added in
whole UNITS, hence to the same sums in whatever order they come.
"""

import math
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

VOTES = "COALESCE(NULLIF({0}votes, ''), {0}predictions)"  # rows of an older ledger do not tell the two apart
UNITS, MOST = 1 << 26, 32  # of a per-bar Sharpe ratio, those of a grid lie 50,000 of them apart; a ratio beyond MOST counts as MOST
HALF = 30  # bits of a square that are added apart from the others: no sum of either leaves int64
_IN_UNITS = (  # SQLite's own ROUND prints the number
    f"(CAST(MAX(-{MOST}.0, MIN({MOST}.0, COALESCE({{0}}sharpe, 0.0))) * {UNITS}.0 + {1 << 40}.5 AS INTEGER) - {1 << 40})"
)


def _row(of: str) -> str:
    units, votes = _IN_UNITS.format(of), VOTES.format(of)
    square = f"{units} * {units}"
    return f"{of}data, {votes}, 1, {of}time, {of}sharpe IS NOT NULL, {units}, ({square}) >> {HALF}, ({square}) & {(1 << HALF) - 1}"


_ADDED = (
    "ON CONFLICT DO UPDATE SET n = n + 1, first = MIN(first, excluded.first), ratios = ratios + excluded.ratios,"
    " total = total + excluded.total, high = high + excluded.high, low = low + excluded.low"
)
TABLE = (
    "CREATE TABLE tallies (data INTEGER NOT NULL, votes TEXT NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL, ratios INTEGER NOT NULL,"
    " total INTEGER NOT NULL, high INTEGER NOT NULL, low INTEGER NOT NULL, PRIMARY KEY (data, votes)) WITHOUT ROWID",
    f"INSERT INTO tallies SELECT {_row('')} FROM trials WHERE TRUE {_ADDED}",
    f"CREATE TRIGGER tallied AFTER INSERT ON trials BEGIN INSERT INTO tallies SELECT {_row('NEW.')} WHERE TRUE {_ADDED}; END",
)


class Ratios(NamedTuple):
    """Sums over trials with a ratio, in UNITS: how many, their total, that of their squares."""

    n: int = 0
    total: int = 0
    squares: int = 0

    @classmethod
    def of(cls, sharpe: float | None) -> "Ratios":
        """Those of one trial."""
        if sharpe is None or math.isnan(sharpe):
            return cls()
        units = math.floor(max(-MOST, min(MOST, sharpe)) * UNITS + 0.5)
        return cls(1, units, units * units)

    def plus(self, other: "Ratios", times: int = 1) -> "Ratios":
        """Add those of others, or take them away."""
        return Ratios(*(a + times * b for a, b in zip(self, other)))

    @property
    def variance(self) -> float:
        """Of the per-bar ratios; 0 below two."""
        return (self.n * self.squares - self.total * self.total) / (self.n * (self.n - 1)) / UNITS**2 if self.n > 1 else 0.0


class Tally(NamedTuple):
    """Trials of one data set with the same `votes`. n: how many; first: when the earliest was made, int64 ns UTC."""

    data: int
    votes: str
    n: int
    first: int
    ratios: Ratios


def tallies(db: sqlite3.Connection, data: Sequence[int]) -> list[Tally]:
    """Read the tallies of data sets."""
    marks = ", ".join("?" * len(data))
    rows = db.execute(f"SELECT data, votes, n, first, ratios, total, high, low FROM tallies WHERE data IN ({marks})", data)
    return [
        Tally(each, votes, n, first, Ratios(ratios, total, (high << HALF) + low))
        for each, votes, n, first, ratios, total, high, low in rows
    ]
