"""Data quality report: what `qt data check` prints, every problem of every symbol, and which of them stop a run.

What stops a run is decided by the same code as in `load_bars`; what is only told is counted here.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from qtcore.types import Bars
from research.data.clock import iso
from research.data.facts import calendar_of
from research.data.grid import fill_planes
from research.data.lacks import measure, mute, unclosed
from research.data.load import is_empty, judge, made_bars, parse_span, parse_symbols, prepare
from research.data.rows import Rows
from research.data.rules import PROBLEMS, Issue
from research.data.schema import VALUES
from research.data.sources import read_rows
from research.data.zones import parse_reading


@dataclass(frozen=True)
class Quality:
    """The problems of a history, by symbol."""

    source: str
    symbols: tuple[str, ...]
    n_rows: int
    issues: tuple[Issue, ...]
    mute: tuple[str, ...] = ()  # a sentence on each symbol that can never vote with the default features
    notes: tuple[str, ...] = ()  # sentences on what was assumed

    @property
    def stops(self) -> bool:
        """Whether a run on this data stops."""
        return any(issue.action == "stops" for issue in self.issues)

    def table(self) -> pd.DataFrame:
        """Return the number of rows with each problem, symbols down, problems across."""
        table = pd.DataFrame(0, index=pd.Index(self.symbols, name="symbol"), columns=pd.Index(list(PROBLEMS), name="problem"))
        for issue in self.issues:
            table.loc[issue.symbol, issue.problem] = issue.count
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        rows = [{**vars(issue), "first": iso(issue.first), "text": issue.text} for issue in self.issues]
        more = {"mute": list(self.mute), "notes": list(self.notes)}
        return {"source": self.source, "symbols": list(self.symbols), "rows": self.n_rows, "stops": self.stops, "issues": rows, **more}


def quality(
    source: Any,
    symbols: Any = None,
    start: Any = None,
    end: Any = None,
    time_label: str = "open",
    calendar: str | None = None,
    interval: str | int | None = None,
    time_zone: str | None = None,
    day_start: str | None = None,
    adjusted: bool = False,
) -> Quality:
    """Examine candles; takes what `load_bars` takes. Raises UserError where they cannot even be read.

    >>> quality("simulated:constant?n_bars=50&n_symbols=1").table().loc["SIM01", "frozen"].item()
    50
    """
    symbols = parse_symbols(symbols)
    reading, made = parse_reading(time_zone, day_start, adjusted), made_bars(source)
    lone = symbols[0] if symbols and len(symbols) == 1 else None
    rows = read_rows(source, lone, replace(reading, label=time_label)) if made is None else rows_from(made)
    rows, length = prepare(rows, symbols, parse_span(start, end), time_label, interval)
    judged = judge(rows, length, calendar, stop=False)
    bars = fill_planes(judged.grid, judged.rows)
    came = np.zeros(bars.close.shape, bool)
    came[judged.grid.rows_at(judged.as_came.time), judged.as_came.code] = ~is_empty(judged.as_came)
    issues = sorted(
        [*judged.tally.issues, *measure(bars, came), *unclosed(bars)],
        key=lambda i: (bars.symbols.index(i.symbol), list(PROBLEMS).index(i.problem)),
    )
    name = source if isinstance(source, str) else "data"
    return Quality(name, bars.symbols, judged.n_rows, tuple(issues), tuple(mute(bars).values()), rows.notes)


def rows_from(bars: Bars) -> Rows:
    """Turn bars back into rows, one per cell; holes are rows of NaN."""
    n_symbols = len(bars.symbols)
    planes = [getattr(bars, name).ravel() for name in VALUES]
    code = np.tile(np.arange(n_symbols, dtype=np.int32), bars.n)
    times = np.repeat(bars.open_time, n_symbols)
    return Rows(times, code, np.stack(planes), bars.symbols, "open", bars.interval, calendar_of(bars), is_ordered=True)
