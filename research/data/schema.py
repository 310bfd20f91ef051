"""Which column is what? Rows: candles as they came, before any of them is judged."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.data.clock import utc_ns
from research.errors import UserError, visible

VALUES = ("open", "high", "low", "close", "volume")
TIME_NAMES = ("open_time", "timestamp", "datetime", "date", "time")
FUNDING_TIMES = ("calc_time", "funding_time", "fundingtime")  # of tables of funding rates alone
ALIASES = {
    "symbol": ("symbol", "ticker", "pair", "instrument", "asset", "instid", "inst_id", "contract"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume", "vol", "tick_volume"),
    "price": ("price",),
    "size": ("size", "qty", "quantity", "amount"),
    "funding_rate": ("funding_rate", "fundingrate", "last_funding_rate", "lastfundingrate", "rate"),
}
LONE = "ASSET"  # name of the only symbol where neither a column, a file name nor the caller names it


@dataclass(frozen=True)
class Rows:
    """N candles in the order of the source.

    time [N]: int64 ns UTC. code [N]: index into `symbols`. values [5, N]: open, high, low, close, volume, NaN where empty;
    [6, N] with a funding rate. label: whether `time` is the open or the close of the bar. What the source itself says, if it does:
    interval in ns, else 0; calendar; is_ordered: the symbols stand in an order that means something. notes: sentences on what was assumed.
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
                raise UserError(f"symbols must be in the data, was {name!r}; it has {some} ({len(self.symbols)})")
        if len(set(order)) != len(order):
            raise UserError(f"symbols must be named once each, was {', '.join(order)}")
        if tuple(order) == self.symbols:
            return self
        rank = np.full(len(self.symbols), -1, np.int32)
        rank[[self.symbols.index(name) for name in order]] = np.arange(len(order), dtype=np.int32)
        code = rank[self.code]
        kept = replace(self, code=code, symbols=tuple(order))
        return kept[code >= 0] if len(order) < len(self.symbols) else kept


def find_columns(names: Iterable[str], wanted: Sequence[str], source: str) -> dict[str, str]:
    """Map each role of `wanted` (plus `time`, `symbol` and `close_time` where present) to the column that holds it. Raises UserError."""
    names = [str(name) for name in names]
    by_name: dict[str, list[str]] = {}
    for name in names:
        by_name.setdefault(name.strip().lower().replace(" ", "_"), []).append(name)
    if "date" in by_name and "time" in by_name and not any(n in by_name for n in TIME_NAMES[:3]):
        raise UserError(f"{source} must have one time column, was two (date and time); join them into timestamp")
    times = (*TIME_NAMES, *FUNDING_TIMES) if "funding_rate" in wanted else TIME_NAMES
    aliases = {"time": times, "close_time": ("close_time",), **ALIASES}
    found = {}
    optional = ("time", "close_time", "symbol") + (("funding_rate",) if "close" in wanted else ())
    for role in dict.fromkeys((*optional, *wanted)):
        alias = next((a for a in aliases[role] if a in by_name), None)
        if alias is None:
            continue
        if len(by_name[alias]) > 1:
            raise UserError(f"{source} must have one column {alias}, was {' and '.join(by_name[alias])}; rename or drop one")
        found[role] = by_name[alias][0]
    missing = [role for role in wanted if role not in found]
    if "time" not in found and "close_time" not in found:
        missing.insert(0, "timestamp")
    if missing:
        need = ", ".join(["timestamp", "symbol", *wanted])
        seen = ", ".join(name if name.isprintable() else repr(name)[:20] for name in names[:12]) or "none"
        seen += ", ..." if len(names) > 12 else ""
        raise UserError(f"{source} must have the columns {need}; missing: {', '.join(missing)}; found: {seen}")
    return found


def numbers(column: pa.ChunkedArray, name: str, source: str) -> F8:
    """Return a column as float64, NaN where empty. Raises UserError on text that is no number."""
    try:
        flat = column.combine_chunks().cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        detail = str(error).splitlines()[0][:120]
        raise UserError(f"{source}: column {name} must hold numbers, was not so ({detail})") from None
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float64)


def symbol_codes(column: pa.ChunkedArray, source: str) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return the index of each row's symbol and the names. Raises UserError on rows without a name."""
    flat = column.combine_chunks()
    if not pa.types.is_dictionary(flat.type):
        flat = flat.cast(pa.string()).dictionary_encode()
    names = [str(name) for name in flat.dictionary.to_pylist()]
    codes = flat.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    nameless = (codes < 0) | np.isin(codes, [i for i, name in enumerate(names) if name.strip() in ("", "None")])
    if np.any(nameless):
        first = int(np.argmax(nameless)) + 1
        raise UserError(f"{source}: column symbol must name every row, {int(nameless.sum()):,} are empty, the first is row {first}")
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
            raise UserError(f"symbols must have names of letters, digits and signs alone, was '{visible(name)}' in {source}; rename it")


def rows_of(table: pa.Table, source: str, lone: str | None = None, wanted: Sequence[str] = VALUES) -> Rows:
    """Turn an Arrow table of candles into Rows; `lone` names the symbol where no column does. Raises UserError."""
    found = find_columns(table.column_names, wanted, source)
    label = "open" if "time" in found else "close"
    stamp = found["time"] if label == "open" else found["close_time"]
    time = utc_ns(table[stamp], f"column {stamp} of {source}")
    own = own_facts(table.schema.metadata)
    interval = 0
    if own is None and label == "open" and "close_time" in found and len(time):
        steps, counts = np.unique(utc_ns(table[found["close_time"]], f"column close_time of {source}") - time, return_counts=True)
        interval = int(steps[np.argmax(counts)])
        if interval <= 0:
            raise UserError(f"{source}: close_time must lie after {stamp}, was not so in most rows; swap or drop the column")
    if "symbol" in found:
        code, symbols = symbol_codes(table[found["symbol"]], source)
    else:
        code, symbols = np.zeros(len(time), np.int32), (lone or LONE,)
    check_names(symbols, source)
    roles = (*wanted, "funding_rate") if "funding_rate" in found else wanted
    values = np.empty((len(roles), len(time)))
    for i, role in enumerate(roles):
        values[i] = numbers(table[found[role]], found[role], source)
    rows = Rows(time, code, values, symbols, label, interval)
    if own is None or not set(symbols) <= set(own["symbols"]):
        return rows
    rank = np.array([own["symbols"].index(name) for name in symbols], np.int32)
    return Rows(time, rank[code], values, tuple(own["symbols"]), label, own["interval"], own["calendar"], True)


def own_facts(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any] | None:
    """Return what `save_bars` wrote beside the columns: symbols in their order, interval, calendar; None in files of others."""
    text = (metadata or {}).get(b"qtcore")
    return None if text is None else json.loads(text)


def join(parts: Sequence[Rows], source: str) -> Rows:
    """Put the rows of several files together. Raises UserError where they disagree on what their time means."""
    if len(parts) == 1:
        return parts[0]
    if len({part.label for part in parts}) > 1:
        raise UserError(f"{source}: all files must have an open time or all a close_time, was mixed; load them one by one")
    symbols = tuple(sorted({name for part in parts for name in part.symbols}))
    ranks = [np.array([symbols.index(name) for name in part.symbols], np.int32) for part in parts]
    intervals = {part.interval for part in parts}
    parts = [replace(part, code=rank[part.code], symbols=symbols) for part, rank in zip(parts, ranks)]
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(stack(parts), interval=intervals.pop() if len(intervals) == 1 else 0, calendar=None, is_ordered=False, notes=notes)


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
