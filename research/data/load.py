"""How do candles become Bars? Read, pick, sort, judge, put on the grid; what was not clean is in the report."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.check import as_bars
from qtcore.types import Bars
from research.data.clock import interval_text, iso, parse_interval, parse_time, utc_ns
from research.data.grid import fill_funding, fill_planes, find_grid, find_interval
from research.data.rules import Issue, future_rows, mask_rows, sort_rows, stop_at
from research.data.schema import Rows, find_columns, numbers, symbol_codes
from research.data.sources import arrow_table, read_rows, read_table
from research.errors import UserError

Times = str | int | Any | None


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
        """One sentence per issue and note."""
        return [issue.text for issue in self.issues] + self.notes


@dataclass(frozen=True)
class Loaded:
    """Bars and the report on how they were read."""

    bars: Bars
    report: LoadReport


def load_bars(
    source: Any,
    symbols: Sequence[str] | None = None,
    start: Times = None,
    end: Times = None,
    time_label: str = "open",
    calendar: str | None = None,
    funding: Any = None,
    interval: str | int | None = None,
) -> Bars:
    """Read candles into Bars; a few bad rows are masked and told in a DataWarning.

    source: Parquet or CSV file, a folder of them, `sample`, `simulated:NAME?key=value`, a pandas or polars frame, a dict of arrays, Bars.
    symbols: which, and in which order; None: all, alphabetical. start, end: open times in [start, end).
    time_label: `open` or `close`, what the time column means. calendar: `regular` or `sessions`; None: by `spec` D-82.
    funding: timestamp, symbol, funding_rate in the same forms. interval: `1h`; None: the most common step.
    Raises UserError (a ValueError) with one sentence on what cannot be used.

    >>> load_bars("simulated:random_walk?n_bars=100&n_symbols=2").close.shape
    (100, 2)
    """
    loaded = load(source, symbols, start, end, time_label, calendar, funding, interval)
    if loaded.report.warnings:
        warnings.warn("\n".join([f"{loaded.report.source}:", *loaded.report.warnings]), DataWarning, stacklevel=2)
    return loaded.bars


def load(
    source: Any,
    symbols: Sequence[str] | None = None,
    start: Times = None,
    end: Times = None,
    time_label: str = "open",
    calendar: str | None = None,
    funding: Any = None,
    interval: str | int | None = None,
) -> Loaded:
    """Do what `load_bars` does, and return the report beside the bars instead of warning."""
    symbols = _names(symbols)
    span = parse_time(start, "start"), parse_time(end, "end")
    if span[0] is not None and span[1] is not None and span[0] >= span[1]:
        raise UserError(f"start must be before end, was {iso(span[0])} and {iso(span[1])}")
    name = str(source) if isinstance(source, str | Path) else "data"
    report = LoadReport(name)
    ready = made_bars(source)
    if ready is not None:
        bars = _cut(ready, symbols, span)
        report.n_rows, report.interval, report.calendar = bars.n * len(bars.symbols), bars.interval, calendar_of(bars)
    else:
        rows = read_rows(source, symbols[0] if symbols and len(symbols) == 1 else None)
        bars = _from_rows(rows, symbols, span, (time_label, calendar, interval), report)
    if funding is not None:
        bars = add_funding(bars, funding, report)
    return Loaded(bars, report)


def made_bars(source: Any) -> Bars | None:
    """Return Bars where the source is Bars, `sample` or a simulated world; None where rows must be read."""
    if isinstance(source, Bars):
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


def prepare(rows: Rows, symbols: Sequence[str] | None, span: tuple[int | None, int | None], label: str, interval: Any) -> tuple[Rows, int]:
    """Pick symbols, find the interval, turn close labels into open times and cut the span. Rows keep the order of the source."""
    if label not in ("open", "close"):
        raise UserError(f"time_label must be open or close, was {label!r}")
    if not rows.n:
        raise UserError("data must have rows, was an empty table")
    rows = rows.pick(symbols)
    length = find_interval(sort_rows(rows)[0], parse_interval(interval) if interval else None)
    if "close" in (label, rows.label):
        rows = Rows(rows.time - length, rows.code, rows.values, rows.symbols, "open", rows.interval)
    if span != (None, None):
        before, after = rows.time.min(), rows.time.max()
        low, high = (before if span[0] is None else span[0]), (after + 1 if span[1] is None else span[1])
        rows = rows[(rows.time >= low) & (rows.time < high)]
        if not rows.n:
            raise UserError(f"start and end must meet the data, was {iso(low)} to {iso(high)}; it spans {iso(before)} to {iso(after)}")
    present = np.bincount(rows.code[~np.isnan(rows.values).all(axis=0)], minlength=len(rows.symbols)) > 0
    if not np.all(present):
        absent = [name for name, here in zip(rows.symbols, present) if not here]
        if symbols is not None or not np.any(present):
            raise UserError(f"every symbol must have bars in the span, was none of {', '.join(absent[:8])}; leave it out or widen the span")
        rows = rows.pick([name for name, here in zip(rows.symbols, present) if here])
    return rows, length


def _from_rows(rows: Rows, symbols: list[str] | None, span: tuple, how: tuple, report: LoadReport) -> Bars:
    label, calendar, interval = how
    all_symbols = rows.symbols
    rows, length = prepare(rows, symbols, span, label, interval)
    if symbols is None and len(rows.symbols) < len(all_symbols):
        gone = sorted(set(all_symbols) - set(rows.symbols))
        report.notes.append(f"{', '.join(gone)}: no bars in the span; left out")
    report.n_rows, report.interval = rows.n, length
    for step in (sort_rows, future_rows, mask_rows):
        rows, issues = step(rows)
        report.issues += issues
        stop_at(issues)
    if not rows.n:
        raise UserError("data must have rows that can be used, was none")
    grid, rows, issues = find_grid(rows, length, calendar)
    report.issues += issues
    stop_at(issues)
    report.calendar, report.empty_share = grid.calendar, grid.empty_share
    return fill_planes(grid, rows)


def add_funding(bars: Bars, source: Any, report: LoadReport | None = None) -> Bars:
    """Return `bars` with the funding rates of `source` (timestamp, symbol, funding_rate) in their plane. Raises UserError."""
    wanted = ("funding_rate",)
    table = read_table(Path(source), wanted) if isinstance(source, str | Path) else arrow_table(source)
    found = find_columns(table.column_names, wanted, "funding")
    if "symbol" not in found or "time" not in found:
        raise UserError(f"funding must have the columns timestamp, symbol, funding_rate, was {', '.join(table.column_names)}")
    time = utc_ns(table[found["time"]], "timestamp of funding")
    rate = numbers(table[found["funding_rate"]], "funding_rate", "funding")
    if not np.all(np.isfinite(rate)):
        raise UserError(f"funding_rate must be finite, was not in {int(np.sum(~np.isfinite(rate))):,} rows; drop them")
    code, names = symbol_codes(table[found["symbol"]], "funding")
    column = np.array([bars.symbols.index(name) if name in bars.symbols else -1 for name in names])[code]
    ours = column >= 0
    funding, lost = fill_funding(bars, time[ours], column[ours], rate[ours])
    if report is not None:
        if missing := [name for name in bars.symbols if name not in names]:
            report.notes.append(f"{', '.join(missing)}: no funding rates; counted as 0")
        if lost:
            report.notes.append(f"{lost:,} funding rates fall between two bars; left out")
    return Bars(**{**vars(bars), "funding": funding})


def calendar_of(bars: Bars) -> str:
    """Say whether every row follows the one before after one interval (`regular`) or not (`sessions`)."""
    return "regular" if np.all(np.diff(bars.open_time) == bars.interval) else "sessions"


def describe_grid(report: LoadReport) -> str:
    """Say in one line which grid was chosen and why (D-82)."""
    share = f"{report.empty_share:.1%} of a regular grid would be empty"
    return f"{interval_text(report.interval)} bars, {report.calendar} ({share})"


def _names(symbols: Sequence[str] | str | None) -> list[str] | None:
    if symbols is None:
        return None
    names = [s.strip() for s in symbols.split(",")] if isinstance(symbols, str) else [str(s) for s in symbols]
    if not [s for s in names if s]:
        raise UserError("symbols must name at least one, was empty")
    return [s for s in names if s]


def _cut(bars: Bars, symbols: list[str] | None, span: tuple[int | None, int | None]) -> Bars:
    if symbols is not None:
        for name in symbols:
            if name not in bars.symbols:
                raise UserError(f"symbols must be in the data, was {name!r}; it has {', '.join(bars.symbols[:8])} ({len(bars.symbols)})")
        columns = [bars.symbols.index(name) for name in symbols]
        planes = {k: np.ascontiguousarray(getattr(bars, k)[:, columns]) for k in ("open", "high", "low", "close", "volume")}
        funding = None if bars.funding is None else np.ascontiguousarray(bars.funding[:, columns])
        bars = Bars(bars.open_time, bars.close_time, **planes, symbols=tuple(symbols), interval=bars.interval, funding=funding)
    first = 0 if span[0] is None else int(np.searchsorted(bars.open_time, span[0]))
    stop = bars.n if span[1] is None else int(np.searchsorted(bars.open_time, span[1]))
    if stop <= first:
        ends = f"{iso(bars.open_time[0])} to {iso(bars.open_time[-1])}" if bars.n else "nothing"
        raise UserError(f"start and end must meet the data, was outside of it; it spans {ends}")
    bars = bars[first:stop]
    if bars.n < 2:
        raise UserError(f"data must have at least 2 bars, was {bars.n}; widen the span")
    return bars
