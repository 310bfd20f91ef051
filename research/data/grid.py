"""Time grid: the rows on which bars stand, the choice between a regular grid and sessions (`spec` D-82), and the planes."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8, NS_PER_DAY, Bars
from research.data.clock import interval_text, iso, month_ends
from research.data.lengths import SHORTEST, TICKS
from research.data.machine import memory
from research.data.rows import Rows, bars_of
from research.data.schema import VALUES
from research.errors import ConfigError, DataError

CALENDARS = ("regular", "sessions")
MAX_EMPTY = 0.05  # of the rows of a regular grid (D-82)
MIN_FULL = 0.01  # of the cells, above SMALL of them (170 MB): no history has so many holes, a wrong time makes them
SMALL = 2**22
MAX_MEMORY = 0.5  # of the memory for the bars: what is made of them wants the rest


@dataclass(frozen=True)
class Grid:
    """The rows: open_time, close_time [n] ns UTC, the interval in ns, the calendar; off_times: distinct times without a place on it."""

    open_time: I8
    close_time: I8
    interval: int
    calendar: str
    off_times: I8

    def __getitem__(self, rows: slice) -> "Grid":
        return replace(self, open_time=self.open_time[rows], close_time=self.close_time[rows])

    def rows_at(self, times: I8) -> I8:
        """Row number of each time; every time must be on the grid."""
        if self.calendar == "regular":
            return np.asarray((times - self.open_time[0]) // self.interval)
        return np.searchsorted(self.open_time, times)


def closes_of(stamps: I8, closes: I8, interval: int) -> I8:
    """Return the close that each stamp means, or the stamp itself where it means none of them.

    stamps: ns UTC, any shape. closes [n]: of the bars, ascending. interval: of the bars, ns. Exchanges write a close 1 ms (1 ns, 1 us, 1 s)
    before the next open: 12:59:59.999 means 13:00. An exact match is never moved. Two stamps may mean one close.

    >>> hours = np.array([1, 2]) * 3_600_000_000_000
    >>> (closes_of(hours - 1_000_000, hours, int(hours[0])) == hours).all()
    np.True_
    """
    if not len(closes):
        return stamps
    after = closes[np.minimum(np.searchsorted(closes, stamps), len(closes) - 1)]
    return np.where(np.isin(after - stamps, [tick for tick in TICKS if tick < interval]), after, stamps)


def most_common(values: I8, weights: I8 | None = None) -> int:
    """Return the value that occurs most often (has most weight), the smallest of several."""
    distinct, at = np.unique(values, return_inverse=True)
    return int(distinct[np.argmax(np.bincount(at, weights))])


def check_calendar(calendar: str | None) -> None:
    """Raise UserError on an unknown kind of calendar; None means that it is measured."""
    if calendar not in (None, *CALENDARS):
        raise ConfigError(f"calendar (--calendar) must be one of {', '.join(CALENDARS)}, was {calendar!r}")


def find_grid(times: I8, counts: I8, interval: int, calendar: str | None, n_symbols: int, block_rows: int | None = None) -> Grid:
    """Choose the rows from the distinct `times` (sorted) and how many candles each has.

    block_rows: as many rows of the planes are in memory at a time; None: all. Raises UserError when bars overlap, and when there would be
    cells without number.
    """
    check_calendar(calendar)
    phases = times % interval
    phase = int(phases[0]) if np.all(phases == phases[0]) else most_common(phases, counts)
    on = phases == phase
    first, last = int(times[on][0]), int(times[on][-1])
    n = (last - first) // interval + 1
    span = int(times[-1] - times[0]) // interval + 1
    is_monthly = month_ends(times, interval) is not None
    is_regular = calendar == "regular" or (calendar is None and not is_monthly and int(on.sum()) > (1.0 - MAX_EMPTY) * span)
    check_size(times, int(counts.sum()), n if is_regular else len(times), interval, n_symbols, block_rows)
    if is_regular:
        open_time = first + interval * np.arange(n, dtype=np.int64)
        grid = Grid(open_time, open_time + interval, interval, "regular", times[~on])
    else:
        open_time = times[~overlapping(times, interval, phase)]
        off = np.setdiff1d(times, open_time, assume_unique=True)
        grid = Grid(open_time, close_times(open_time, interval), interval, "sessions", off)
    if len(grid.open_time) < 2:
        raise DataError(f"data must have at least 2 bars, was {len(grid.open_time)} (at {iso(grid.open_time[0])}); give more history")
    return grid


def check_size(times: I8, n_candles: int, n: int, interval: int, n_symbols: int, block_rows: int | None) -> None:
    """Refuse n rows of n_symbols where hardly a cell has a candle, or that do not fit into memory, before they are made."""
    span = f"from {iso(times[0])} to {iso(times[-1])}"
    grid = f"{n:,} rows of {interval_text(interval)} x {n_symbols:,} symbol{'s' * (n_symbols > 1)}"
    if n * n_symbols > SMALL and n_candles < MIN_FULL * n * n_symbols:
        at = int(np.argmax(np.diff(times)))
        hole = f"none between {iso(times[at])} and {iso(times[at + 1])}"
        remedy = "use --calendar sessions" if n > len(times) else "load fewer symbols"
        raise DataError(
            f"candles must fill {MIN_FULL:.0%} of the grid {span}, were {n_candles:,} in {grid}, {hole}; leave out times that are wrong "
            f"(--from, --to), or {remedy}"
        )
    check_memory(16 * n + 8 * len(VALUES) * n_symbols * min(n, block_rows or n), f"{grid} {span}")


def check_memory(size: int, what: str) -> None:
    """Refuse bars of `size` bytes that do not fit into memory, before they are made."""
    available = memory()
    if available is not None and size > MAX_MEMORY * available:
        raise DataError(
            f"bars must fit into {MAX_MEMORY:.0%} of the memory here ({available / 2**30:,.1f} GiB), would take {size / 2**30:,.1f} GiB "
            f"for {what}; load a shorter span, fewer symbols or longer bars"
        )


def distinct_times(time: I8, interval: int) -> tuple[I8, I8]:
    """Return the sorted distinct times and how many candles each has; counting on a grid is faster than sorting where there is one."""
    first = int(time.min())
    offset = time - first
    n = int(offset.max()) // interval + 1
    if n > 8 * len(time) + 1024 or np.any(offset % interval):
        return np.unique(time, return_counts=True)
    counts = np.bincount(offset // interval, minlength=n)
    used = np.flatnonzero(counts)
    return first + interval * used, counts[used]


def overlapping(times: I8, interval: int, phase: int) -> NDArray[np.bool_]:
    """Say which of the session times start inside a bar of the common phase. Raises UserError where bars overlap all the same."""
    shortest = interval if interval < NS_PER_DAY else int(SHORTEST * interval)
    tight = np.diff(times) < shortest
    drop = np.zeros(len(times), bool)
    if np.any(tight):
        drop[:-1] |= tight
        drop[1:] |= tight
        drop &= times % interval != phase
        left = times[~drop]
        tight = np.diff(left) < shortest
        if np.any(tight):
            at = int(np.argmax(tight))
            raise DataError(
                f"bars of {interval_text(interval)} must not overlap, was so at {iso(left[at])} and {iso(left[at + 1])} "
                f"({int(tight.sum()):,} times); round the timestamps or give the interval"
            )
    return drop


def close_times(open_time: I8, interval: int) -> I8:
    """Close of each bar: open plus interval, but no later than the next open (a day of 23 hours) and the end of a calendar month."""
    close = open_time + interval
    close[:-1] = np.minimum(close[:-1], open_time[1:])
    ends = month_ends(open_time, interval)
    return close if ends is None else np.minimum(close, ends)


def fill_planes(grid: Grid, rows: Rows) -> Bars:
    """Scatter the rows into planes [n, S]; what no row fills is NaN, and 0 in the funding plane."""
    n, n_symbols = len(grid.open_time), len(rows.symbols)
    at = grid.rows_at(rows.time) * n_symbols + rows.code
    planes = []
    for i, values in enumerate(rows.values):
        plane = np.full(n * n_symbols, np.nan if i < len(VALUES) else 0.0)
        plane[at] = values if i < len(VALUES) else np.nan_to_num(values, nan=0.0)
        planes.append(plane.reshape(n, n_symbols))
    return bars_of((grid.open_time, grid.close_time), planes, rows.symbols, grid.interval)


def filled(plane: NDArray[np.float64], start: float) -> NDArray[np.float64]:
    """Carry the last known value down each column [n, S]; `start` before the first."""
    known = ~np.isnan(plane)
    row = np.maximum.accumulate(np.where(known, np.arange(len(plane))[:, None], -1), axis=0)
    return np.where(row < 0, start, np.take_along_axis(plane, np.maximum(row, 0), axis=0))
