"""Candle loader: read, pick, sort, judge, put on the grid as Bars; what was not clean is in the report."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.check import as_bars
from qtcore.params import Params
from qtcore.types import I8, Bars
from research.data.clock import interval_text, iso, month_ends, parse_length, parse_time
from research.data.facts import calendar_of, empty_share
from research.data.funding import add_funding
from research.data.grid import MAX_EMPTY, Grid, check_calendar, distinct_times, fill_planes, find_grid
from research.data.lacks import jumps, measure, mute, sentences, unclosed
from research.data.lengths import are_closes, check_lengths, check_longer, check_series, count_steps, find_interval, opens_of, whole_length
from research.data.rows import Rows
from research.data.rules import Issue, IssueCounts, drop_rows, mask_rows, sort_rows, wrong_clock
from research.data.sources import read_rows
from research.data.stretches import check_phases, check_stretches
from research.data.zones import Reading, parse_reading
from research.errors import ConfigError, DataError, visible

FIRSTS = "the bars are calendar months dated by first days, read as the days they open; where they close there, use --time-label close"
CLOSES = "the timestamps lie just before whole minutes, or are the last days of months, where bars close: they were read as closes"
Span = tuple[int | None, int | None]  # [start, end) of the open times, ns UTC


class DataWarning(UserWarning):
    """Something in the data was sorted, dropped or masked; the run goes on."""


@dataclass
class LoadReport:
    """What was read, on which grid it stands, and what was not clean."""

    source: str
    n_rows: int = 0
    interval: int = 0
    calendar: str = "regular"
    empty_share: float = 0.0
    issues: list[Issue] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """One sentence per issue that changed something or is no jump, and per note; what a run tells is `lacked`."""
        return [issue.text for issue in self.issues if issue.problem != "jump"] + self.notes

    @property
    def lacked(self) -> list[str]:
        """What a run tells of it: one sentence a problem, the notes, and a grid that is no regular one."""
        out = sentences(self.issues) + self.notes
        if self.calendar == "sessions" and self.empty_share > MAX_EMPTY:
            share = f"{self.empty_share:.0%} of a regular grid of {interval_text(self.interval)} would be empty"
            out.append(f"the rows are the times that have a candle (sessions): {share}; --calendar regular makes them holes")
        return out


@dataclass(frozen=True)
class Loaded:
    """Bars and the report on how they were read."""

    bars: Bars
    report: LoadReport

    def lacks(self, params: Params | None = None) -> list[str]:
        """Everything that a command tells of the data. params: of the models, to name the symbols that can never vote; None: no models."""
        silent = {} if params is None else mute(self.bars, params)
        return list(dict.fromkeys([*silent.values(), *self.report.lacked, *sentences(measure(self.bars))]))


def load_bars(
    source: Any,
    symbols: Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    time_label: str = "open",
    calendar: str | None = None,
    funding: Any = None,
    interval: str | int | None = None,
    time_zone: str | None = None,
    day_start: str | None = None,
    adjusted: bool = False,
) -> Bars:
    """Read candles into Bars; a few bad rows are masked and told in a DataWarning.

    source: Parquet, Arrow or text file (`data/README.md` lists the layouts), a folder of them, `sample`, `simulated:NAME?key=value`, a
    pandas or polars frame, a dict of arrays, Bars. symbols: which, and in which order; None: all, alphabetical. start, end: open times in
    [start, end), UTC. time_label: `open` or `close`, what the time column means. calendar: `regular` or `sessions`; None: by `spec` D-82.
    funding: timestamp, symbol, funding_rate in the same forms. interval: `1h`, `1M` for months; None: the most common step.
    time_zone: IANA name of the zone of times that name none; None: UTC. day_start: when the day of a bar dated by day begins, such as
    `17:00 America/New_York`, from noon on the evening before; None: midnight. adjusted: read `Adj Close`, and scale the other prices.
    Raises UserError (a ValueError) with one sentence on what cannot be used.

    >>> load_bars("simulated:random_walk?n_bars=100&n_symbols=2").close.shape
    (100, 2)
    """
    loaded = load(source, symbols, start, end, time_label, calendar, funding, interval, time_zone, day_start, adjusted)
    warn(loaded.report.warnings, loaded.report.source)
    return loaded.bars


def warn(sentences: Sequence[str], source: str) -> None:
    """Tell what was not clean in one DataWarning, as if the caller's caller had."""
    if sentences:
        warnings.warn("\n".join(map(visible, [f"{source}:", *sentences])), DataWarning, stacklevel=3)


def load(
    source: Any,
    symbols: Sequence[str] | None = None,
    start: Any = None,
    end: Any = None,
    time_label: str = "open",
    calendar: str | None = None,
    funding: Any = None,
    interval: str | int | None = None,
    time_zone: str | None = None,
    day_start: str | None = None,
    adjusted: bool = False,
) -> Loaded:
    """Do what `load_bars` does, and return the report beside the bars instead of warning."""
    check_label(time_label)
    check_calendar(calendar)
    symbols = parse_symbols(symbols)
    span = parse_span(start, end)
    name = str(source) if isinstance(source, str | Path) else "data"
    report = LoadReport(name)
    reading = parse_reading(time_zone, day_start, adjusted)
    ready = made_bars(source)
    if ready is not None:
        bars = _cut(ready, symbols, span)
        report.n_rows = bars.n * len(bars.symbols)
        if reading != Reading():
            report.notes.append("--time-zone, --day-start and --adjusted were not needed: these bars are not read from a table")
        if (time_label, calendar, interval) != ("open", None, None):
            report.notes.append("--time-label, --calendar and --interval were not needed: these bars are not read from a table")
    else:
        rows = read_rows(source, symbols[0] if symbols and len(symbols) == 1 else None, replace(reading, label=time_label))
        bars = _from_rows(rows, symbols, span, (time_label, calendar, interval), report)
        if gone := sorted(set(rows.symbols) - set(bars.symbols)) if symbols is None else []:
            report.notes.append(gone_text(gone))
    report.issues += jumps(bars)
    report.interval, report.calendar, report.empty_share = bars.interval, calendar_of(bars), empty_share(bars)
    if funding is not None:
        bars = add_funding(bars, funding, report.notes, reading.zone)
    return Loaded(bars, report)


def made_bars(source: Any) -> Bars | None:
    """Return Bars where the source is Bars, `sample` or a simulated world; None where rows must be read."""
    if isinstance(source, Bars):
        if not source.n:
            raise DataError("bars must have rows, was none")
        return as_bars(source)
    if not isinstance(source, str):
        return None
    if source == "sample":
        from research.data.sample import sample

        return sample()
    if source.startswith("simulated:"):
        from research.data.simulate import simulate_text

        return simulate_text(source.removeprefix("simulated:"))
    return None


def prepare(rows: Rows, symbols: Sequence[str] | None, span: Span, label: str, interval: str | int | None) -> tuple[Rows, int]:
    """Pick symbols, find the interval, turn close labels into open times and cut the span. Rows keep the order of the source.

    A row of a foreign file without a single value is no candle: it counts for as little as a row that is not there.
    """
    check_label(label)
    if not rows.n:
        raise DataError("data must have rows, was an empty table")
    rows = known_grid(rows.pick(symbols))
    if not rows.calendar and np.any(empty := is_empty(rows)):
        named, rows = np.unique(rows.code), rows[~empty]
        check_seen([rows.symbols[s] for s in named], np.isin(named, rows.code))
    length = parse_length(interval) if interval else rows.interval
    if not interval and not rows.calendar:
        length = _one_length(rows)
    if "close" in (label, rows.label):
        rows = replace(rows, time=opens_of(rows.time, length), label="open")
    elif not rows.interval and are_closes(rows.time, 1, length):
        rows = replace(rows, time=opens_of(rows.time, length), notes=(*rows.notes, CLOSES))
    elif not (rows.interval or rows.says_open) and month_ends(rows.time, length) is not None:
        rows = replace(rows, notes=(*rows.notes, FIRSTS))
    if span != (None, None):
        inside = in_span(rows.time, span)
        if not np.any(inside):
            raise DataError(outside_text(span, int(rows.time.min()), int(rows.time.max())))
        rows = rows[inside]
    absent = [name for name, n in zip(rows.symbols, np.bincount(rows.code, minlength=len(rows.symbols))) if n == 0]
    if absent and symbols is not None:
        raise DataError(absent_text(absent))
    return rows.pick([name for name in rows.symbols if name not in absent]) if absent else rows, length


def known_grid(rows: Rows) -> Rows:
    """Believe what the source says of its interval; where that is of closes a tick early (59 min 59.999 s), the calendar went with it."""
    length = whole_length(rows.interval)
    return rows if length == rows.interval else replace(rows, interval=length, calendar=None)


def is_empty(rows: Rows) -> NDArray[np.bool_]:
    """Say which rows hold nothing: neither a price nor a volume nor a funding rate [N]."""
    empty = np.isnan(rows.values[3])
    at = np.flatnonzero(empty)
    values = rows.values[:, at]
    empty[at] = np.isnan(values[:5]).all(axis=0) & ~(np.abs(values[5:]) > 0.0).any(axis=0)
    return empty


def _one_length(rows: Rows) -> int:
    """Return the bar length of rows. Raises UserError where they have two."""
    is_tidy = is_sorted(rows)
    ordered = rows if is_tidy else rows[np.lexsort((rows.time, rows.code))]
    steps = count_steps(ordered)
    length = rows.interval or find_interval(steps, rows.symbols)
    check_phases(ordered, length)
    check_stretches(ordered, length)
    check_lengths(steps, rows.symbols, length)
    if not is_tidy:  # one series below the other
        check_lengths(count_steps(rows[np.argsort(rows.code, kind="stable")]), rows.symbols, length)
    check_series(ordered, length)
    check_longer(ordered, length)
    return length


def is_sorted(rows: Rows) -> bool:
    """Say whether the rows are sorted by symbol, then time."""
    step = np.diff(rows.code)
    return bool(np.all((step > 0) | ((step == 0) & (np.diff(rows.time) >= 0))))


def in_span(time: I8, span: Span) -> NDArray[np.bool_]:
    """Say which times lie in [start, end); None is no bound."""
    inside = np.ones(len(time), bool)
    if span[0] is not None:
        inside &= time >= span[0]
    if span[1] is not None:
        inside &= time < span[1]
    return inside


def outside_text(span: Span, first: int, last: int) -> str:
    """Say that a span misses the data."""
    low, high = ("the beginning" if span[0] is None else iso(span[0])), ("the end" if span[1] is None else iso(span[1]))
    return f"start (--from) and end (--to) must meet the data, was {low} to {high}; it spans {iso(first)} to {iso(last)}"


def check_label(label: str) -> None:
    """Refuse a time label that is neither `open` nor `close`."""
    if label not in ("open", "close"):
        raise ConfigError(f"time_label (--time-label) must be open or close, was {label!r}")


def has_candle(bars: Bars) -> NDArray[np.bool_]:
    """Say which symbols have a candle at all [S]."""
    return np.asarray(~np.isnan(bars.close).all(axis=0))


def check_seen(symbols: Sequence[str], seen: NDArray[np.bool_]) -> None:
    """Refuse bars in which a symbol never has a candle; seen [S]: which have one."""
    if not np.all(seen):
        empty = ", ".join([name for name, here in zip(symbols, seen) if not here][:8])
        raise DataError(f"every symbol must have candles, was none that can be used of {empty}; leave it out with --symbols")


def absent_text(absent: Sequence[str]) -> str:
    """Say that symbols which were asked for have no rows in the span."""
    return f"every symbol must have bars in the span, was none of {', '.join(absent[:8])}; leave it out or widen the span"


def gone_text(gone: Sequence[str]) -> str:
    """Say that symbols which nobody named have no rows in the span."""
    return f"{', '.join(gone)}: no bars in the span; left out"


@dataclass(frozen=True)
class Judged:
    """Rows on their grid: what can be used of the `n_rows` that came, bad ones blank, the same as they came, and the issues."""

    rows: Rows
    as_came: Rows
    grid: Grid
    tally: IssueCounts
    n_rows: int


def judge(rows: Rows, interval: int, calendar: str | None, stop: bool = True) -> Judged:
    """Sort, drop and blank what must be, and choose the grid. Raises UserError where a run stops; `stop=False` only counts."""
    counts = np.bincount(rows.code, minlength=len(rows.symbols))
    tally, n_rows = IssueCounts(), rows.n
    rows, issues = sort_rows(rows, counts)
    tally.add(issues, stop)
    rows, issues = drop_rows(rows, counts, "clock", wrong_clock(rows.time))
    tally.add(issues, stop)
    if not rows.n:
        raise DataError("data must have rows that can be used, was none; see qt data check")
    times, candles = distinct_times(rows.time, interval)
    grid = find_grid(times, candles, interval, calendar or rows.calendar, len(rows.symbols))
    came, issues = drop_rows(rows, counts, "off_grid", np.isin(rows.time, grid.off_times))
    tally.add(issues, stop)
    rows, issues = mask_rows(came, counts)
    tally.add(issues, stop)
    return Judged(rows, came, grid, tally, n_rows)


def _from_rows(rows: Rows, symbols: list[str] | None, span: Span, how: tuple, report: LoadReport) -> Bars:
    label, calendar, interval = how
    rows, length = prepare(rows, symbols, span, label, interval)
    judged = judge(rows, length, calendar)
    bars = replace(fill_planes(judged.grid, judged.rows), origin=rows.origin)
    check_seen(bars.symbols, has_candle(bars))
    report.n_rows, report.issues = judged.n_rows, judged.tally.issues + unclosed(bars)
    report.notes += rows.notes
    return bars


def parse_span(start: Any, end: Any) -> Span:
    """Return start and end in ns UTC; None is no bound. Raises UserError when they are no times or hold nothing."""
    low, high = parse_time(start, "start (--from)"), parse_time(end, "end (--to)")
    if low is not None and high is not None and low >= high:
        raise ConfigError(f"start (--from) must be before end (--to), was {iso(low)} and {iso(high)}")
    return low, high


def parse_symbols(symbols: Sequence[str] | str | None) -> list[str] | None:
    """Return the names of `A,B` or of a sequence; None is all. Raises UserError when there is none."""
    if symbols is None:
        return None
    names = [s.strip() for s in symbols.split(",")] if isinstance(symbols, str) else [str(s) for s in symbols]
    if not [s for s in names if s]:
        raise DataError("symbols must name at least one, was empty")
    return [s for s in names if s]


def _cut(bars: Bars, symbols: list[str] | None, span: Span) -> Bars:
    if symbols is not None:
        for name in symbols:
            if name not in bars.symbols:
                raise ConfigError(
                    f"symbols (--symbols) must be in the data, was {name!r}; it has {', '.join(bars.symbols[:8])} ({len(bars.symbols)})"
                )
        columns = [bars.symbols.index(name) for name in symbols]
        planes: dict[str, Any] = {k: np.ascontiguousarray(getattr(bars, k)[:, columns]) for k in ("open", "high", "low", "close", "volume")}
        funding = None if bars.funding is None else np.ascontiguousarray(bars.funding[:, columns])
        bars = replace(bars, **planes, symbols=tuple(symbols), funding=funding)
    first = 0 if span[0] is None else int(np.searchsorted(bars.open_time, span[0]))
    stop = bars.n if span[1] is None else int(np.searchsorted(bars.open_time, span[1]))
    if stop <= first:
        raise DataError(outside_text(span, bars.open_time[0], bars.open_time[-1]))
    bars = bars[first:stop]
    if bars.n < 2:
        raise DataError(f"data must have at least 2 bars, was {bars.n}; widen the span")
    return bars
