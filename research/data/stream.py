"""Out-of-core streaming of a history: two passes through a Parquet file, one for the grid, one for blocks of Bars.

The file is sorted by symbol, then time, or by time. Each symbol (or the whole file) has a cursor that decodes one batch at a time; memory
holds the batches of all cursors, one block, and the distinct timestamps (8 bytes a row).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qtcore.types import I8, Bars
from research.data.clock import month_ends, parse_length
from research.data.grid import Grid, fill_planes, find_grid
from research.data.lacks import unclosed
from research.data.lengths import Steps, are_closes, check_lengths, find_interval, opens_of, whole_length
from research.data.load import (
    CLOSES,
    FIRSTS,
    Span,
    absent_text,
    check_label,
    check_seen,
    gone_text,
    in_span,
    is_empty,
    outside_text,
    parse_span,
    parse_symbols,
    warn,
)
from research.data.rows import Rows, numbers, own_facts, rows_of, stack
from research.data.rules import Issue, IssueCounts, action_on, drop_rows, mask_rows, sort_rows, wrong_clock
from research.data.schema import VALUES, find_columns
from research.data.sources import open_parquet, symbol_of
from research.data.unread import is_text
from research.data.zones import Reading, parse_reading
from research.errors import DataError

BATCH = 65_536  # rows of a cursor decoded at once
SURVEY_BATCH = 2**20  # the survey reads two columns only
MERGE = 2**22  # timestamps that wait to be merged
BUFFER = 2**18  # bytes read ahead; without it pyarrow holds whole column chunks
MAX_TIME = 2**63 - 1


@dataclass(frozen=True)
class Survey:
    """What the first pass found; symbols as asked for."""

    symbols: tuple[str, ...]
    counts: I8  # [S] rows in the span
    groups: tuple[list[int], ...]  # [S] row groups that hold the symbol
    grid: Grid
    span: Span  # of the open times
    wrong_times: I8  # open times, left out by the clock
    is_close: bool  # the time column says when bars close
    keeps_empty: bool  # a row without values is a row of the grid: our own file says so
    by_time: bool  # the file as a whole is sorted by time
    issues: list[Issue]
    notes: list[str]  # what was assumed of the whole
    reading: Reading  # how every batch is read, and what was assumed of it

    def opens(self, time: I8) -> I8:
        """Turn the time column into open times."""
        return opens(time, self.grid.interval, self.is_close)


def opens(time: I8, interval: int, is_close: bool) -> I8:
    """Turn a time column into open times."""
    return opens_of(time, interval) if is_close else time


def stream_bars(
    path: str | Path,
    symbols: Sequence[str] | None = None,
    block_rows: int = 8_192,
    start: Any = None,
    end: Any = None,
    time_label: str = "open",
    calendar: str | None = None,
    interval: str | int | None = None,
    time_zone: str | None = None,
    day_start: str | None = None,
    adjusted: bool = False,
) -> Iterator[Bars]:
    """Return an iterator over `load_bars(path, ...)` in blocks of `block_rows` rows, bit for bit, in constant memory.

    The Parquet file must be sorted by symbol and time, or by time. Bad rows are judged as they come: where a symbol has too many, the
    iterator stops with the sentence that `load_bars` says at once. What was assumed, dropped or masked is told in the words of `load_bars`,
    in one DataWarning, when the iterator ends or is closed. Raises UserError.
    """
    path = Path(path)
    if block_rows < 1:
        raise DataError(f"block_rows must be at least 1, was {block_rows}")
    check_label(time_label)
    if not path.is_file():
        raise DataError(f"stream_bars needs one Parquet file, was {str(path)!r}; load_bars reads the rest")
    reading = replace(parse_reading(time_zone, day_start, adjusted), forms={})
    facts = survey(path, parse_symbols(symbols), parse_span(start, end), (time_label, calendar, interval), reading, block_rows)
    return _blocks(path, facts, block_rows)


def _blocks(path: Path, facts: Survey, block_rows: int) -> Iterator[Bars]:
    tally, unclosed_rows = IssueCounts(), IssueCounts()
    tally.add(facts.issues)
    candles = np.zeros(len(facts.symbols), np.int64)
    try:
        for bars in _judged(path, facts, block_rows, tally):
            candles += (~np.isnan(bars.close)).sum(axis=0)
            unclosed_rows.add(unclosed(bars))
            yield bars
        check_seen(facts.symbols, candles > 0)
    finally:
        of = dict(zip(facts.symbols, candles.tolist()))
        issues = [*tally.issues, *(replace(issue, of=of[issue.symbol]) for issue in unclosed_rows.issues)]
        notes = [note.replace(f" of {path.name}", "") for note in facts.reading.notes]
        warn([*(issue.text for issue in issues), *notes, *facts.notes], str(path))


def _judged(path: Path, facts: Survey, block_rows: int, tally: IssueCounts) -> Iterator[Bars]:
    """Yield the blocks; what is wrong with their rows goes to `tally`."""
    cursors = [_Cursor(path, facts, s) for s in ([None] if facts.by_time else range(len(facts.symbols)))]
    n = len(facts.grid.open_time)
    for first in range(0, n, block_rows):
        grid = facts.grid[first : first + block_rows]
        until = int(grid.open_time[-1]) if first + block_rows < n else MAX_TIME
        rows = stack([cursor.take(until) for cursor in cursors])
        rows, issues = sort_rows(rows, facts.counts)
        tally.add(issues)
        rows, issues = drop_rows(rows, facts.counts, "off_grid", np.isin(rows.time, grid.off_times))
        tally.add(issues)
        rows, issues = mask_rows(rows, facts.counts)
        tally.add(issues)
        yield fill_planes(grid, rows)


def survey(
    path: Path,
    symbols: list[str] | None,
    span: Span,
    how: tuple[str, str | None, str | int | None],
    reading: Reading,
    block_rows: int | None = None,
) -> Survey:
    """Read times and symbols once and choose the grid; `how`: time label, calendar, interval. Raises UserError, also where not sorted."""
    label, calendar, interval = how
    scan = _Scan(path, symbols, reading)
    length = parse_length(interval) if interval else scan.interval or find_interval(scan.steps, scan.symbols)
    if not interval and not scan.calendar:
        check_lengths(scan.steps, scan.symbols, length)
    is_said = "close" in (label, scan.label)
    is_close = is_said or (not scan.interval and are_closes(scan.times, scan.candles, length))
    times, candles = _merge([(opens(scan.times, length, is_close), scan.candles)])
    clock, counts = wrong_clock(times), scan.counts
    wrong_times = times[clock]
    issues: list[Issue] = []
    if span != (None, None) or np.any(clock):
        counts, wrong = scan.count(span, wrong_times, lambda time: opens(time, length, is_close))
        inside = in_span(times, span)
        if not np.any(inside):
            raise DataError(outside_text(span, int(times[0]), int(times[-1])))
        for name, k, of in zip(scan.symbols, wrong.tolist(), counts.tolist()):
            if k:
                issues.append(Issue(name, "clock", k, of, int(wrong_times[0]), action_on("clock", k, of)))
        inside &= ~clock
        times, candles = times[inside], candles[inside]
    absent = [name for name, k in zip(scan.symbols, counts) if k == 0]
    if absent and symbols is not None:
        raise DataError(absent_text(absent))
    here = np.flatnonzero(counts)
    names, groups = tuple(scan.symbols[s] for s in here), tuple(scan.groups[s] for s in here)
    grid = find_grid(times, candles, length, calendar or scan.calendar, len(names), block_rows)
    notes = [CLOSES] if is_close and not is_said else []
    notes += [FIRSTS] if not (is_close or scan.interval or scan.says_open) and month_ends(times, length) is not None else []
    notes += [gone_text(absent)] if absent else []
    whole = (names, counts[here], groups, grid, span, wrong_times)
    return Survey(*whole, is_close, scan.keeps_empty, scan.by_time, issues, notes, scan.reading)


class _Scan:
    """One pass over the time and the symbol of every row: what must be known before the first block."""

    def __init__(self, path: Path, symbols: list[str] | None, reading: Reading) -> None:
        with open_parquet(path) as file:
            schema, own = file.schema_arrow, own_facts(file.metadata.metadata) or {}
            names = schema.names
            self.reading = reading
            found = find_columns(names, VALUES, path.name, self.reading)
        self._path, self._columns = path, _time_columns(find_columns(names, (), path.name), bool(own))
        self._close, self._whole = found["close"], _time_columns(found, bool(own))
        if "symbol" not in found:  # what may name it under another name is looked at
            texts = [field.name for field in schema if is_text(field.type) and field.name not in self._whole]
            self._columns, self._whole = self._columns + texts, self._whole + texts
        length = whole_length(own.get("interval", 0))
        self.calendar: str | None = own.get("calendar") if length == own.get("interval") else None
        self.keeps_empty = self.calendar is not None
        self._index: dict[str, int] = {name: i for i, name in enumerate(symbols or own.get("symbols", ()))}
        self._last: dict[int, int] = {}  # time of each symbol's last row
        self._previous = -MAX_TIME
        self._is_open = symbols is None  # takes whatever symbol comes
        counts: Counter[int] = Counter()
        groups: dict[int, set[int]] = {}
        lengths: Counter[int] = Counter()
        everyone: set[str] = set()
        parts: list[tuple[I8, I8]] = []
        self.steps = Steps()
        self.by_time, self.label, self.says_open = True, "open", False
        for group, rows, all_names in self._batches():
            everyone.update(all_names)
            lengths[rows.interval] += rows.n
            self.label, self.says_open = rows.label, rows.says_open
            if not rows.n:
                continue
            self._walk(rows)
            for code, n in zip(*np.unique(rows.code, return_counts=True)):
                counts[int(code)] += int(n)
                groups.setdefault(int(code), set()).add(group)
            parts.append(np.unique(rows.time, return_counts=True))
            if sum(len(times) for times, _ in parts[1:]) > MERGE:
                parts = [_merge(parts)]
        order = list(self._index) if own or symbols else sorted(self._index)
        Rows(np.empty(0, np.int64), np.empty(0, np.int32), np.empty((0, 0)), tuple(everyone)).pick(symbols)
        if not parts:
            raise DataError(f"{path.name} must have candles, was an empty table")
        places = [self._index[name] for name in order]
        self.symbols = tuple(order)
        self.counts = np.array([counts[i] for i in places])
        if not self.keeps_empty:
            check_seen(self.symbols, self.counts > 0)
        self.groups = [sorted(groups.get(i, ())) for i in places]
        self.steps = self.steps.renumbered(places)
        self.times, self.candles = _merge(parts)
        self.interval: int = length or whole_length(lengths.most_common(1)[0][0])

    def _batches(self) -> Iterator[tuple[int, Rows, tuple[str, ...]]]:
        """Yield row group, the rows of our symbols with codes of `_index`, and the symbols seen."""
        symbol = find_columns(self._columns, (), self._path.name).get("symbol")
        with open_parquet(self._path, symbol, pre_buffer=False, buffer_size=BUFFER) as file:
            for group in range(file.num_row_groups):
                wanted = VALUES if not self.keeps_empty and self._has_holes(file, group) else ()
                columns = self._whole if wanted else self._columns
                for batch in file.iter_batches(batch_size=SURVEY_BATCH, row_groups=[group], columns=columns):
                    rows = rows_of(pa.Table.from_batches([batch]), self._path.name, symbol_of(self._path), wanted, self.reading)
                    rows = rows[~is_empty(rows)] if wanted else rows
                    if self._is_open:
                        for name in rows.symbols:
                            self._index.setdefault(name, len(self._index))
                    rank = np.array([self._index.get(name, -1) for name in rows.symbols], np.int32)
                    code = rank[rows.code]
                    yield group, replace(rows, code=code)[code >= 0], rows.symbols

    def _has_holes(self, file: pq.ParquetFile, group: int) -> bool:
        """Say whether a close is missing: only then the other values of the row group are read."""
        batches = file.iter_batches(batch_size=SURVEY_BATCH, row_groups=[group], columns=[self._close])
        return any(np.isnan(numbers(pa.chunked_array([batch.column(0)]), self._close, self._path.name)).any() for batch in batches)

    def _walk(self, rows: Rows) -> None:
        """Count the steps from row to row of each symbol, and see how the file is sorted. Raises UserError where it is not."""
        self.by_time = self.by_time and self._previous <= rows.time[0] and bool(np.all(np.diff(rows.time) >= 0))
        self._previous = int(rows.time[-1])
        if np.any(np.diff(rows.code) < 0):
            rows = rows[np.argsort(rows.code, kind="stable")]
        edges = np.flatnonzero(np.diff(rows.code, prepend=-1, append=-1))
        for start, stop in pairwise(edges):
            code, time = int(rows.code[start]), rows.time[start:stop]
            check_order(np.append(self._last.get(code, time[0]), time), self._path)
            self._last[code] = int(time[-1])
            self.steps.add(code, time)

    def count(self, span: Span, wrong_times: I8, opens_of: Callable[[I8], I8]) -> tuple[I8, I8]:
        """Count the rows of each symbol in the span, and those of them at wrong open times; opens_of: of the time column."""
        n = len(self.symbols)
        inside, wrong = np.zeros(n, np.int64), np.zeros(n, np.int64)
        place = np.array([self.symbols.index(name) for name in self._index])
        for _, rows, _ in self._batches():
            time = opens_of(rows.time)
            here = in_span(time, span)
            inside += np.bincount(place[rows.code[here]], minlength=n)
            wrong += np.bincount(place[rows.code[here & np.isin(time, wrong_times)]], minlength=n)
        return inside, wrong


def check_order(time: I8, path: Path) -> None:
    """Refuse times of one symbol that go back."""
    if np.any(np.diff(time) < 0):
        raise DataError(f"{path.name} must be sorted by symbol and time to be streamed, was not; sort it, or use load_bars")


def _merge(parts: list[tuple[I8, I8]]) -> tuple[I8, I8]:
    """Unite sorted times and add up their counts; a stable sort of a few sorted runs only merges them."""
    times, counts = (np.concatenate(arrays) for arrays in zip(*parts))
    order = np.argsort(times, kind="stable")
    times = times[order]
    first = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
    return times[first], np.add.reduceat(counts[order], first)


def _time_columns(found: dict[str, str], says_interval: bool) -> list[str]:
    """Return the columns to read: a close time beside an open time only tells the interval."""
    return [name for role, name in found.items() if role != "close_time" or "time" not in found or not says_interval]


class _Cursor:
    """The rows of one symbol (None: of all), one batch at a time."""

    def __init__(self, path: Path, facts: Survey, symbol: int | None) -> None:
        self._facts, self._symbol = facts, symbol
        self._batches = self._read(path)
        self._rows: Rows | None = None

    def _read(self, path: Path) -> Iterator[Rows]:
        facts = self._facts
        groups = sorted(set().union(*facts.groups)) if self._symbol is None else facts.groups[self._symbol]
        index = {name: i for i, name in enumerate(facts.symbols)}
        with open_parquet(path) as file:
            found = find_columns(file.schema_arrow.names, VALUES, path.name)
        with open_parquet(path, found.get("symbol"), pre_buffer=False, buffer_size=BUFFER) as file:
            for batch in file.iter_batches(batch_size=BATCH, row_groups=groups, columns=_time_columns(found, True)):
                rows = rows_of(pa.Table.from_batches([batch]), path.name, symbol_of(path), reading=facts.reading)
                code = np.array([index.get(name, -1) for name in rows.symbols], np.int32)[rows.code]
                time = facts.opens(rows.time)
                mine = (code >= 0 if self._symbol is None else code == self._symbol) & in_span(time, facts.span)
                if len(facts.wrong_times):
                    mine &= ~np.isin(time, facts.wrong_times)
                if not facts.keeps_empty:
                    mine &= ~is_empty(rows)
                check_order(time[mine], path)
                yield replace(rows, time=time, code=code, symbols=facts.symbols, label="open")[mine]

    def take(self, until: int) -> Rows:
        """Return the rows up to the open time `until`, and keep the rest for later."""
        parts = [] if self._rows is None else [self._rows]
        while not parts or parts[-1].n == 0 or parts[-1].time[-1] <= until:
            batch = next(self._batches, None)
            if batch is None:
                break
            parts.append(batch)
        rows = stack(parts)
        cut = int(np.searchsorted(rows.time, until, side="right"))
        self._rows = rows[cut:]
        return rows[:cut]
