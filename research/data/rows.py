"""Candle rows: candles as they came, before any of them is judged. `Rows`, and how a table becomes them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.data.clock import utc_ns
from research.data.numerals import read_numbers
from research.data.schema import VALUES, find_columns, header_zone, noting, plain, shown
from research.data.unread import FORMING, check_unread, closed_rows, names_nothing
from research.data.zones import Reading
from research.errors import ConfigError, DataError, visible

LONE = "ASSET"  # name of the only symbol where neither a column, a file name nor the caller names it


@dataclass(frozen=True)
class Rows:
    """N candles in the order of the source.

    time [N]: int64 ns UTC. code [N]: index into `symbols`. values [5, N]: open, high, low, close, volume, NaN where empty;
    [6, N] with a funding rate. label: whether `time` is the open or the close of the bar. What the source itself says, if it does:
    interval in ns, else 0; calendar; says_open: its column is called an open time; is_ordered: the symbols stand in an order that means
    something; origin: how they were simulated.
    notes: sentences on what was assumed.
    """

    time: I8
    code: NDArray[np.int32]
    values: F8
    symbols: tuple[str, ...]
    label: str = "open"
    interval: int = 0
    calendar: str | None = None
    is_ordered: bool = False
    notes: tuple[str, ...] = ()
    origin: str = ""
    says_open: bool = False

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.time)

    def __getitem__(self, rows: slice | np.ndarray) -> "Rows":
        return replace(self, time=self.time[rows], code=self.code[rows], values=self.values[:, rows])

    def pick(self, symbols: Sequence[str] | None) -> "Rows":
        """Keep `symbols`, in that order; None keeps all, alphabetical unless ordered. Raises UserError when one is not there."""
        order = list(symbols) if symbols is not None else list(self.symbols) if self.is_ordered else sorted(self.symbols)
        for name in order:
            if name not in self.symbols:
                some = ", ".join(sorted(self.symbols)[:8]) + (", ..." if len(self.symbols) > 8 else "")
                raise ConfigError(f"symbols (--symbols) must be in the data, was {name!r}; it has {some} ({len(self.symbols)})")
        if len(set(order)) != len(order):
            raise DataError(f"symbols must be named once each, was {', '.join(order)}")
        if tuple(order) == self.symbols:
            return self
        rank = np.full(len(self.symbols), -1, np.int32)
        rank[[self.symbols.index(name) for name in order]] = np.arange(len(order), dtype=np.int32)
        code = rank[self.code]
        kept = replace(self, code=code, symbols=tuple(order))
        return kept[code >= 0] if len(order) < len(self.symbols) else kept


def numbers(column: pa.ChunkedArray, name: str, source: str) -> F8:
    """Return a column as float64, NaN where empty. Raises UserError on text that is no number."""
    return read_numbers({name: column}, source)[0]


def symbol_codes(column: pa.ChunkedArray, source: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return the index of each row's symbol and the names. Raises UserError on rows without a name."""
    flat = column.combine_chunks()
    if not pa.types.is_dictionary(flat.type):
        flat = flat.cast(pa.string()).dictionary_encode()
    names = [str(name).strip() for name in flat.dictionary.to_pylist()]
    codes = flat.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    nameless = (codes < 0) | np.isin(codes, [i for i, name in enumerate(names) if name in ("", "None")])
    if np.any(nameless):
        first = int(np.argmax(nameless)) + 1
        raise DataError(f"{source}: column symbol must name every row, {int(nameless.sum()):,} are empty, the first is row {first}")
    used = np.unique(codes)  # a categorical may carry names that no row has
    if len(set(names)) < len(names) or len(used) < len(names):
        kept = sorted({names[i] for i in used})
        rank = np.array([kept.index(name) if name in kept else -1 for name in names], np.int32)
        return rank[codes], tuple(kept)
    return codes, tuple(names)


def check_names(symbols: Sequence[str], source: str) -> None:
    """Raise UserError on a name that no terminal and no page can show as it is."""
    for name in symbols:
        if visible(name) != name:
            raise DataError(f"symbols must have names of letters, digits and signs alone, was '{visible(name)}' in {source}; rename it")


def rows_of(table: pa.Table, source: str, lone: str | None = None, wanted: Sequence[str] = VALUES, reading: Reading | None = None) -> Rows:
    """Turn an Arrow table of candles into Rows; `lone` names the symbol where no column does.

    reading: how times and prices are read; what was assumed goes to its notes. Raises UserError with all that must be corrected.
    """
    reading = reading or Reading()
    found = find_columns(table.column_names, wanted, source, reading)
    label = "open" if "time" in found else "close"
    own = own_facts(table.schema.metadata)
    problems: list[str] = []
    code = np.zeros(table.num_rows, np.int32)
    symbols: tuple[str, ...] = (lone or LONE,)
    time = close_time = np.empty(0, np.int64)
    values = np.empty((len(wanted), 0))
    if "symbol" in found and names_nothing(table[found["symbol"]], plain(found["symbol"])):
        left = found.pop("symbol")
        reading.notes[:] = [note for note in reading.notes if not note.startswith(f"symbol is column {shown(left)}")]
        reading.note(f"column {shown(left)} names no symbol and is not read")
    if "symbol" in found:
        with noting(problems):
            code, symbols = symbol_codes(table[found["symbol"]], source)
            if lone and plain(found["symbol"]) == "name" and len(symbols) == 1 and symbols[0].isdigit():
                reading.note(f"{found['symbol']} holds {symbols[0]} alone, which names no symbol; it is {lone}")
                symbols = (lone,)
    with noting(problems):
        check_names(symbols, source)
    with noting(problems):
        time = _times(table, found, "time" if label == "open" else "close_time", source, reading, code)
    if own is None and label == "open" and "close_time" in found and table.num_rows:
        with noting(problems):
            close_time = _times(table, found, "close_time", source, reading, code)
    with noting(problems):
        values = _values(table, found, wanted, source, reading)
    if "symbol" not in found and len(time):
        with noting(problems):
            unread = [name for name in table.column_names if name not in found.values()]
            check_unread(table, unread, time, lone or LONE, source, reading)
    closed: NDArray[np.bool_] | slice = slice(None)
    if "closed" in found:
        with noting(problems):
            closed = closed_rows(table[found["closed"]], found["closed"], plain(found["closed"]) in FORMING, source, reading)
    if problems:
        raise DataError("; also: ".join(problems))
    interval = 0
    if len(close_time):
        steps, counts = np.unique(close_time - time, return_counts=True)
        interval = int(steps[counts == counts.max()][-1])  # of January and February the longer: months
        if interval <= 0:
            raise DataError(f"{source}: close_time must lie after {found['time']}, was not so in most rows; swap or drop the column")
    says_open = label == "open" and re.search("open|start|begin", plain(found["time"])) is not None
    rows = Rows(time, code, values, symbols, label, interval, says_open=says_open)
    if own is None or not set(symbols) <= set(own["symbols"]):
        return rows[closed]
    rank = np.array([own["symbols"].index(name) for name in symbols], np.int32)
    about = {"interval": own["interval"], "calendar": own["calendar"], "origin": str(own.get("origin", ""))}
    return Rows(time, rank[code], values, tuple(own["symbols"]), label, is_ordered=True, **about)[closed]


def _times(table: pa.Table, found: Mapping[str, str], role: str, source: str, reading: Reading, code: NDArray[np.int32]) -> I8:
    zone = header_zone(found[role])
    if zone is not None:
        reading = replace(reading, zone=zone)
    hours = table[found["hours"]] if role == "time" and "hours" in found else None
    return utc_ns(table[found[role]], f"column {found[role] or 1} of {source}", reading, code, hours)


def _values(table: pa.Table, found: Mapping[str, str], wanted: Sequence[str], source: str, reading: Reading) -> F8:
    """Return the columns of `wanted`, and a funding rate where there is one, as rows; a volume that is not there is 0."""
    roles = (*wanted, "funding_rate") if "funding_rate" in found and "funding_rate" not in wanted else tuple(wanted)
    extra = [role for role in ("ticks", "adjusted") if role in found and found[role] not in [found.get(r) for r in roles]]
    here = [role for role in (*roles, *extra) if role in found]
    read = dict(zip(here, read_numbers({found[role]: table[found[role]] for role in here}, source, reading)))
    if "volume" not in read and "volume" in roles:
        reading.note("no column of volume; it is read as 0")
        read["volume"] = np.zeros(table.num_rows)
    if (
        reading.forms is None
        and "volume" in here
        and table.num_rows
        and np.isnan(read["volume"]).all()
        and not np.isnan(read["close"]).all()
    ):
        reading.note(f"column {found['volume']} is empty; volume is read as 0")
        read["volume"] = np.zeros(table.num_rows)
    if reading.forms is None and "volume" in here and table.num_rows and np.all(read["volume"] == -1.0):  # Interactive Brokers
        reading.note(f"column {found['volume']} is -1 in every row; volume is read as 0")
        read["volume"] = np.zeros(table.num_rows)
    if "ticks" in extra:
        is_ticks = not np.any(read["volume"] > 0.0)
        reading.remember(f"volume of {source}", "ticks" if is_ticks else "trades")
        taken, left = (found["ticks"], found["volume"]) if is_ticks else (found["volume"], found["ticks"])
        reading.note(f"volume is column {taken}; {left} is not read")
        read["volume"] = read["ticks"] if is_ticks else read["volume"]
    if reading.is_adjusted and "close" in roles:
        if "adjusted" not in found:
            raise DataError(f"{source} must have a column Adj Close to be read adjusted, was without; leave --adjusted out")
        factor = read["adjusted"] / read["close"]
        read |= {role: read[role] * factor for role in ("open", "high", "low")} | {"close": read["adjusted"]}
        reading.note("prices are adjusted: open, high and low are scaled as Adj Close is to the close; volume is as traded")
    elif "adjusted" in found:
        reading.note(f"prices are as traded; {found['adjusted']} is not read (--adjusted reads it)")
    values = np.empty((len(roles), table.num_rows))
    for i, role in enumerate(roles):
        values[i] = read[role]
    return values


def own_facts(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any] | None:
    """Return what `save_bars` wrote beside the columns: symbols in their order, interval, calendar; None in files of others."""
    text = (metadata or {}).get(b"qtcore")
    return None if text is None else json.loads(text)


def join(parts: Sequence[Rows], source: str) -> Rows:
    """Put the rows of several files together. Raises UserError where they disagree on what their time means."""
    if len(parts) == 1:
        return parts[0]
    if len({part.label for part in parts}) > 1:
        raise DataError(f"{source}: all files must have an open time or all a close_time, was mixed; load them one by one")
    symbols = tuple(sorted({name for part in parts for name in part.symbols}))
    ranks = [np.array([symbols.index(name) for name in part.symbols], np.int32) for part in parts]
    intervals = {part.interval for part in parts}
    parts = [replace(part, code=rank[part.code], symbols=symbols) for part, rank in zip(parts, ranks)]
    says_open = all(part.says_open for part in parts)
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    interval = intervals.pop() if len(intervals) == 1 else 0
    return replace(stack(parts), interval=interval, calendar=None, is_ordered=False, notes=notes, origin="", says_open=says_open)


def stack(parts: Sequence[Rows]) -> Rows:
    """Put parts with the same symbols below each other; a funding rate stays where every part has one."""
    height = min(len(part.values) for part in parts)
    return replace(
        parts[0],
        time=np.concatenate([part.time for part in parts]),
        code=np.concatenate([part.code for part in parts]),
        values=np.concatenate([part.values[:height] for part in parts], axis=1),
    )


def bars_of(times: tuple[I8, I8], planes: Sequence[np.ndarray], symbols: tuple[str, ...], interval: int, funding: F8 | None = None) -> Bars:
    """Put open and close times and the five planes (or six, funding last) together."""
    open_, high, low, close, volume = planes[:5]
    return Bars(times[0], times[1], open_, high, low, close, volume, symbols, interval, planes[5] if len(planes) > 5 else funding)
