"""Resampling: bars or trade ticks gathered into longer bars; a longer bar is known only at its close."""

from typing import Any

import numpy as np

from qtcore.check import as_bars
from qtcore.types import I8, NS_PER_DAY, Bars
from research.data.clock import interval_text, month_starts, parse_interval, parse_length, parse_months
from research.data.facts import calendar_of
from research.data.grid import close_times, distinct_times, fill_planes, find_grid, most_common
from research.data.load import parse_symbols, warn
from research.data.rows import Rows, bars_of
from research.data.rules import IssueCounts, found
from research.data.schema import plain
from research.data.sources import column_names, read_rows
from research.errors import DataError

WEEK = 7 * NS_PER_DAY
MONDAY = 4 * NS_PER_DAY  # 1970-01-05


def resample(bars: Bars, interval: str | int, keep_incomplete: bool = False) -> Bars:
    """Gather bars into bars of a multiple of their interval: first open, highest high, lowest low, last close, summed volume.

    New bars begin at whole multiples since 1970 (weeks on Monday, months on their first day, UTC), plus the minutes by which the old ones
    are off the hour. A bar belongs to the longer one in which it closes. A longer bar is complete when every row of it has a candle of the
    symbol, on a regular grid every row there could be; the first and the last session are complete when they have as many rows as most.
    Incomplete bars become holes, or stay with `keep_incomplete`. Raises UserError.

    >>> from research.data import simulate
    >>> resample(simulate("random_walk", n_bars=10, n_symbols=1), "4h").close.shape
    (2, 1)
    """
    bars = as_bars(bars)
    months, length = parse_months(interval), _multiple(bars, interval)
    phases = bars.open_time % bars.interval
    offset = int(phases[0]) if bars.interval < NS_PER_DAY and np.all(phases == phases[0]) else 0
    known = bars.close_time - 1
    start = month_starts(known, months) if months else bin_start(known, length, offset)
    first = np.flatnonzero(np.diff(start, prepend=start[0] - 1))
    n_rows = np.diff(first, append=bars.n)
    here = ~np.isnan(bars.close)
    count = np.add.reduceat(here, first, axis=0, dtype=np.int64)
    is_regular = calendar_of(bars) == "regular"
    end = month_starts(start[first], months, 1) if months else start[first] + length
    complete = count == ((end - start[first]) // bars.interval if is_regular else n_rows)[:, None]
    if not is_regular:
        usual = most_common(n_rows[1:-1]) if len(n_rows) > 2 else n_rows.max()
        complete[0] &= n_rows[0] >= usual
        complete[-1] &= n_rows[-1] >= usual
    keep = count > 0 if keep_incomplete else complete & (count > 0)
    if not np.any(keep):
        raise DataError(f"bars must fill at least one of {interval_text(length)}, was too short a history; see --keep-incomplete")
    planes = gather(bars, first, here, keep)
    used = np.flatnonzero(keep.any(axis=1))
    rows = slice(used[0], used[-1] + 1)
    open_time = start[first][rows]
    close_time = end[rows] if is_regular or months else close_times(open_time, length)
    return bars_of((open_time, close_time), [plane[rows] for plane in planes], bars.symbols, length)


def gather(bars: Bars, first: np.ndarray, here: np.ndarray, keep: np.ndarray) -> list[np.ndarray]:
    """Reduce the rows from each of `first` [m] to the next: open, high, low, close, volume [m, S], and funding where bars have it.

    here [n, S]: where bars have a candle; keep [m, S]: what is not kept is NaN.
    """
    row = np.arange(bars.n)[:, None]
    opened = np.minimum.reduceat(np.where(here, row, bars.n - 1), first, axis=0)
    closed = np.maximum.reduceat(np.where(here, row, 0), first, axis=0)
    planes = [
        np.take_along_axis(bars.open, opened, axis=0),
        np.fmax.reduceat(bars.high, first, axis=0),
        np.fmin.reduceat(bars.low, first, axis=0),
        np.take_along_axis(bars.close, closed, axis=0),
        np.add.reduceat(np.where(here, bars.volume, 0.0), first, axis=0),
    ]
    planes = [np.ascontiguousarray(np.where(keep, plane, np.nan)) for plane in planes]
    return planes if bars.funding is None else [*planes, np.add.reduceat(bars.funding, first, axis=0)]


def _multiple(bars: Bars, interval: str | int) -> int:
    """Return the length in ns of a new interval. Raises UserError where the old bars do not fill it."""
    text = interval_text(bars.interval)
    if parse_months(interval):
        if NS_PER_DAY % bars.interval:
            raise DataError(f"bars must be of a day or a part of it to be gathered into months, was {text}; start from shorter bars")
        return parse_length(interval)
    length = parse_interval(interval)
    if length <= bars.interval or length % bars.interval:
        raise DataError(f"new interval must be a multiple of {text} above it, was {interval_text(length)}; choose another")
    return length


def bin_start(time: I8, length: int, offset: int = 0) -> I8:
    """Return the beginning of the bin of `length` ns that each time lies in."""
    anchor = offset + (MONDAY if length % WEEK == 0 else 0)
    return np.asarray(time - (time - anchor) % length)


def known_rows(longer: Bars, close_time: I8) -> I8:
    """Return for each decision time the last row of `longer` that had closed by then, -1 where none had.

    This is the only honest way to look at longer bars from shorter ones: `longer.close[known_rows(longer, bars.close_time)]`.
    """
    return np.asarray(np.searchsorted(longer.close_time, close_time, side="right") - 1)


def bars_from_ticks(source: Any, interval: str | int, symbols: Any = None, keep_incomplete: bool = False) -> Bars:
    """Gather trades into bars of `interval`; ticks have the columns timestamp, symbol, price, size. Raises UserError.

    Trades of one time keep their order. The first and the last bar of the history are left out, for trades may be missing from them,
    unless `keep_incomplete`. Bars without a trade are holes. A few bad trades are dropped, as in `load_bars`.
    """
    if months := parse_months(interval):
        raise DataError(f"ticks must be gathered into bars of one length first, was {months} calendar months; use 1d, then resample those")
    length = parse_interval(interval)
    rows = read_rows(source, wanted=("price", "size")).pick(parse_symbols(symbols))
    if not rows.n:
        raise DataError("ticks must have rows, was an empty table")
    rows, tally = _clean_ticks(rows[np.argsort(rows.code, kind="stable")])
    start = bin_start(rows.time, length)
    first = np.flatnonzero((np.diff(start, prepend=start[0] - 1) != 0) | (np.diff(rows.code, prepend=-1) != 0))
    price, size = rows.values
    last = np.append(first[1:], rows.n) - 1
    highest, lowest = np.maximum.reduceat(price, first), np.minimum.reduceat(price, first)
    values = np.stack([price[first], highest, lowest, price[last], np.add.reduceat(size, first)])
    bars = Rows(start[first], rows.code[first], values, rows.symbols)
    if not keep_incomplete:
        bars = bars[(bars.time > start.min()) & (bars.time < start.max())]
    if not bars.n:
        raise DataError(f"ticks must span more than two bars of {interval_text(length)}, was fewer; see --keep-incomplete")
    grid = find_grid(*distinct_times(bars.time, length), length, None, len(bars.symbols))
    warn([*(issue.text for issue in tally.issues), *rows.notes], "ticks")
    return fill_planes(grid, bars)


def is_ticks(source: Any) -> bool:
    """Say whether the columns are those of trades: a price, and neither an open nor a close."""
    names = {plain(name) for name in column_names(source)}
    return "price" in names and not names & {"close", "open"}


def _clean_ticks(rows: Rows) -> tuple[Rows, IssueCounts]:
    """Sort by symbol and time, trades of one time in their order, and drop what is no trade; many of either raise UserError."""
    counts, tally = np.bincount(rows.code, minlength=len(rows.symbols)), IssueCounts()
    back = np.flatnonzero((np.diff(rows.code) == 0) & (np.diff(rows.time) < 0)) + 1
    if len(back):
        tally.add(found("unsorted", back, rows, counts))
        rows = rows[np.lexsort((rows.time, rows.code))]
    price, size = rows.values
    rules = {"incomplete": np.isnan(price) | np.isnan(size), "not_finite": np.isinf(price) | np.isinf(size)}
    rules |= {"not_positive": price <= 0.0, "negative_volume": size < 0.0}
    bad = np.zeros(rows.n, bool)
    for problem, broken in rules.items():
        tally.add(found(problem, np.flatnonzero(broken & ~bad), rows, counts))
        bad |= broken
    return rows[~bad], tally
