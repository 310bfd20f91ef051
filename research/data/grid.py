"""On which rows do the bars stand? The interval, the choice between a regular grid and sessions (`spec` D-82), and the planes."""

from dataclasses import dataclass

import numpy as np

from qtcore.types import F8, I8, NS_PER_DAY, Bars
from research.data.clock import interval_text, iso
from research.data.rules import Issue, found
from research.data.schema import VALUES, Rows, bars_of
from research.errors import UserError

CALENDARS = ("regular", "sessions")
MAX_EMPTY = 0.05  # of the rows of a regular grid (D-82)
SHORTEST = 0.85  # of its interval that a bar of a day or more may last: a day of 23 hours, a month of 28 days
MAX_CELLS = 2**31


@dataclass(frozen=True)
class Grid:
    """The rows: open_time, close_time [n] ns UTC, the interval in ns, the calendar, and the share of empty rows of a regular grid."""

    open_time: I8
    close_time: I8
    interval: int
    calendar: str
    empty_share: float

    def rows_at(self, times: I8) -> I8:
        """Row number of each time; every time must be on the grid."""
        if self.calendar == "regular":
            return np.asarray((times - self.open_time[0]) // self.interval)
        return np.searchsorted(self.open_time, times)


def most_common(values: I8) -> int:
    """Return the value that occurs most often, the smallest of several."""
    distinct, counts = np.unique(values, return_counts=True)
    return int(distinct[np.argmax(counts)])


def steps_of(rows: Rows) -> tuple[I8, I8]:
    """Return the steps between neighbouring rows of a symbol, and whose they are. Rows are sorted by symbol, then time."""
    step = np.diff(rows.time)
    keep = (np.diff(rows.code) == 0) & (step > 0)
    return step[keep], rows.code[1:][keep].astype(np.int64)


def find_interval(rows: Rows, interval: int | None) -> int:
    """Return the bar length in ns: as told, as the source says, else the most common step. Raises UserError where symbols differ."""
    if interval or rows.interval:
        return interval or rows.interval
    step, code = steps_of(rows)
    if not len(step):
        raise UserError("data must have at least 2 bars of a symbol, was 1; give more history")
    common = most_common(step)
    n_steps = np.bincount(code, minlength=len(rows.symbols))
    n_common = np.bincount(code[step == common], minlength=len(rows.symbols))
    for s in np.flatnonzero((n_steps >= 20) & (2 * n_common < n_steps)):
        own = most_common(step[code == s])
        if own != common:
            raise UserError(
                f"symbols must have bars of one length, was {interval_text(own)} for {rows.symbols[s]} and {interval_text(common)} "
                f"for most; resample first, or leave {rows.symbols[s]} out"
            )
    return common


def find_grid(rows: Rows, interval: int, calendar: str | None) -> tuple[Grid, Rows, list[Issue]]:
    """Choose the rows and drop what lies off them. Raises UserError when bars overlap or fewer than 2 rows remain."""
    if calendar not in (None, *CALENDARS):
        raise UserError(f"calendar must be one of {', '.join(CALENDARS)}, was {calendar!r}")
    counts = np.bincount(rows.code, minlength=len(rows.symbols))
    phases = rows.time % interval
    phase = int(phases[0]) if np.all(phases == phases[0]) else most_common(phases)
    on = phases == phase
    first, last = int(rows.time[on].min()), int(rows.time[on].max())
    n = (last - first) // interval + 1
    union = distinct(rows.time[on], first, interval, n)
    empty_share = 1.0 - len(union) / n
    if calendar == "regular" or (calendar is None and empty_share < MAX_EMPTY):
        if n * len(rows.symbols) > MAX_CELLS:
            raise UserError(f"a regular grid of {interval_text(interval)} would have {n:,} rows; use --calendar sessions")
        issues = found("off_grid", np.flatnonzero(~on), rows, counts)
        open_time = first + interval * np.arange(n, dtype=np.int64)
        grid = Grid(open_time, open_time + interval, interval, "regular", empty_share)
        return _enough(grid), rows if np.all(on) else rows[on], issues
    open_time, off = session_times(rows, interval, phase, union if np.all(on) else None)
    keep = ~off
    issues = found("off_grid", np.flatnonzero(off), rows, counts)
    grid = Grid(open_time, close_times(open_time, interval), interval, "sessions", empty_share)
    return _enough(grid), rows if np.all(keep) else rows[keep], issues


def distinct(times: I8, first: int, interval: int, n: int) -> I8:
    """Return the sorted distinct times; a table of flags is faster than sorting while the regular grid is not much longer."""
    if n > 64 * len(times) + 1024:
        return np.unique(times)
    seen = np.zeros(n, bool)
    seen[(times - first) // interval] = True
    return first + interval * np.flatnonzero(seen)


def session_times(rows: Rows, interval: int, phase: int, union: I8 | None) -> tuple[I8, np.ndarray]:
    """Return the union of the timestamps without those that overlap a bar of the common phase, and which rows are left out."""
    union = np.unique(rows.time) if union is None else union
    shortest = interval if interval < NS_PER_DAY else int(SHORTEST * interval)
    tight = np.flatnonzero(np.diff(union) < shortest)
    off = np.zeros(rows.n, bool)
    if len(tight):
        near = np.unique(np.concatenate([union[tight], union[tight + 1]]))
        drop = near[near % interval != phase]
        off = np.isin(rows.time, drop)
        union = np.setdiff1d(union, drop, assume_unique=True)
        tight = np.flatnonzero(np.diff(union) < shortest)
        if len(tight):
            raise UserError(
                f"bars of {interval_text(interval)} must not overlap, was so at {iso(union[tight[0]])} and {iso(union[tight[0] + 1])} "
                f"({len(tight):,} times); round the timestamps or give the interval"
            )
    return union, off


def close_times(open_time: I8, interval: int) -> I8:
    """Close of each bar: open plus interval, but no later than the next open (a day of 23 hours, a month of 28 days)."""
    close = open_time + interval
    close[:-1] = np.minimum(close[:-1], open_time[1:])
    return close


def fill_planes(grid: Grid, rows: Rows) -> Bars:
    """Scatter the rows into planes [n, S]; what no row fills is NaN."""
    n, n_symbols = len(grid.open_time), len(rows.symbols)
    at = grid.rows_at(rows.time) * n_symbols + rows.code
    planes = []
    for i in range(len(VALUES)):
        plane = np.full(n * n_symbols, np.nan)
        plane[at] = rows.values[i]
        planes.append(plane.reshape(n, n_symbols))
    return bars_of((grid.open_time, grid.close_time), planes, rows.symbols, grid.interval)


def fill_funding(bars: Bars, time: I8, code: np.ndarray, rate: F8) -> tuple[F8, int]:
    """Sum the rates due in (open_time, close_time] of each bar; also return how many fell between two bars and are left out.

    Milliseconds after a full second are ignored: exchanges stamp 08:00:00.003 what is due at 08:00.
    """
    funding = np.zeros((bars.n, len(bars.symbols)))
    due = time - time % 1_000_000_000
    row = np.searchsorted(bars.close_time, due, side="left")
    inside = (row < bars.n) & (due > bars.open_time[np.minimum(row, bars.n - 1)])
    within = (due > bars.open_time[0]) & (due <= bars.close_time[-1])
    np.add.at(funding, (row[inside], code[inside]), rate[inside])
    return funding, int(np.sum(within & ~inside))


def _enough(grid: Grid) -> Grid:
    if len(grid.open_time) < 2:
        raise UserError(f"data must have at least 2 bars, was {len(grid.open_time)} (at {iso(grid.open_time[0])}); give more history")
    return grid
