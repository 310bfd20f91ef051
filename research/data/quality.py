"""Is the data fit to run? What `qt data check` prints: every problem of every symbol, and which of them stop a run.

What stops a run is decided by the same code as in `load_bars`; what is only told is counted here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qtcore.types import Bars
from research.data.clock import iso
from research.data.facts import calendar_of
from research.data.load import Judged, judge, made_bars, parse_span, parse_symbols, prepare
from research.data.rules import PROBLEMS, Issue, found, present
from research.data.schema import VALUES, Rows
from research.data.sources import read_rows
from research.data.zones import parse_reading

JUMP, USUAL_MOVES = 0.10, 20.0  # a jump is a move beyond both: this share, and so many times the median move
FROZEN = 10  # bars with one price


@dataclass(frozen=True)
class Quality:
    """The problems of a history, by symbol."""

    source: str
    symbols: tuple[str, ...]
    n_rows: int
    issues: tuple[Issue, ...]

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
        return {"source": self.source, "symbols": list(self.symbols), "rows": self.n_rows, "stops": self.stops, "issues": rows}


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
    rows = read_rows(source, lone, reading) if made is None else rows_from(made)
    rows, length = prepare(rows, symbols, parse_span(start, end), time_label, interval)
    judged = judge(rows, length, calendar, stop=False)
    issues = sorted(
        [*judged.tally.issues, *tell(judged)], key=lambda i: (judged.rows.symbols.index(i.symbol), list(PROBLEMS).index(i.problem))
    )
    return Quality(source if isinstance(source, str) else "data", judged.rows.symbols, judged.n_rows, tuple(issues))


def rows_from(bars: Bars) -> Rows:
    """Turn bars back into rows, one per cell; holes are rows of NaN."""
    n_symbols = len(bars.symbols)
    planes = [getattr(bars, name).ravel() for name in VALUES]
    code = np.tile(np.arange(n_symbols, dtype=np.int32), bars.n)
    times = np.repeat(bars.open_time, n_symbols)
    return Rows(times, code, np.stack(planes), bars.symbols, "open", bars.interval, calendar_of(bars), is_ordered=True)


def tell(judged: Judged) -> list[Issue]:
    """Count what never stops a run: gaps, no volume, jumps, frozen prices, bars that are not closed. Rows are sorted and judged."""
    rows, came = (part[np.flatnonzero(~np.isnan(part.values[:5]).all(axis=0))] for part in (judged.rows, judged.as_came))
    counts = np.bincount(rows.code, minlength=len(rows.symbols))
    _, high, low, close, volume = rows.values[:5]
    same = np.diff(rows.code) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.abs(np.diff(np.log(close)))
    moves[~same] = np.nan
    jump = np.zeros(rows.n, bool)
    still = np.zeros(rows.n, bool)
    still[1:] = same & (moves == 0.0) & (high[1:] == low[1:])
    for s in np.flatnonzero(counts > 1):
        mine = np.flatnonzero(rows.code == s)[1:]
        jump[mine] = moves[mine - 1] > max(np.log1p(JUMP), USUAL_MOVES * float(np.nanmedian(moves[mine - 1])))
    told = {
        "zero_volume": volume == 0.0,
        "jump": jump,
        "frozen": _long_runs(still),
        "unclosed": rows.time + judged.grid.interval > present(),
    }
    return _gaps(judged, came) + [issue for name, bad in told.items() for issue in found(name, np.flatnonzero(bad), rows, counts)]


def _gaps(judged: Judged, rows: Rows) -> list[Issue]:
    """One issue per symbol with grid rows missing between its first and its last candle."""
    issues = []
    for s, name in enumerate(rows.symbols):
        at = judged.grid.rows_at(rows.time[rows.code == s])
        if not len(at):
            continue
        wide = np.flatnonzero(np.diff(at) > 1)
        if len(wide):
            n = int(at[-1] - at[0]) + 1
            issues.append(Issue(name, "gap", n - len(at), n, int(judged.grid.open_time[at[wide[0]] + 1]), "told"))
    return issues


def _long_runs(still: np.ndarray) -> np.ndarray:
    """Mark the rows of every run of `FROZEN` or more rows with one price; `still` says that a row repeats the price before it."""
    edges = np.flatnonzero(np.diff(still.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    marks = np.zeros(len(still), bool)
    for start, stop in zip(starts, stops):
        if stop - start + 1 >= FROZEN:
            marks[start - 1 : stop] = True
    return marks
