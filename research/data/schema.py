"""Column schema: the names by which columns are known; and `Rows`, candles as they came, before any of them is judged."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.data.clock import utc_ns
from research.data.numerals import read_numbers
from research.data.unread import CLOSED, FORMING, NAMES, check_unread, closed_rows, names_nothing
from research.data.zones import Reading
from research.errors import ConfigError, DataError, UserError, visible

VALUES = ("open", "high", "low", "close", "volume")
TIME_NAMES = ("open_time", "opentime", "timeopen", "time_period_start", "window_start", "start_time", "starttime", "time_open", "ts_event",
              "timestamp", "unix", "unix_timestamp", "unix_time", "datetime", "date_time", "date", "dtyyyymmdd", "date_ymd",
              "trade_date", "time", "ts", "t",
              "gmt_time", "utc_time", "local_time", "time_utc", "time_gmt", "time_eet", "date_utc", "date_gmt", "datetime_utc",
              "timestamp_utc", "open_time_utc", "start", "begin", "mts")  # fmt: skip
DAYS = ("date", "dtyyyymmdd", "date_ymd")  # may have the time of day beside them, in a column `time`
NAMELESS = ("", "index", "unnamed_0", "index_level_0", "level_0")  # where an index without a name was saved
FUNDING_TIMES = (
    "calc_time",
    "funding_time",
    "fundingtime",
    "fundingratetimestamp",
    "timepoint",
    "effectiveat",
)  # of tables of funding rates alone
ALIASES = {
    "close_time": ("close_time", "closetime", "timeclose", "time_period_end"),
    "symbol": ("symbol", "ticker", "pair", "instrument", "asset", "instid", "inst_id", "contract",
               "instrument_name", "ts_code", "coin", "name", *NAMES),
    "closed": (*CLOSED, *FORMING),
    "open": ("open", "price_open", "open_price", "openprice", "o"),
    "high": ("high", "price_high", "high_price", "highprice", "h"),
    "low": ("low", "price_low", "low_price", "lowprice", "l"),
    "close": ("close", "price_close", "close_price", "closeprice", "close_last", "last", "latest", "c", "price"),
    "volume": ("volume", "vol", "real_volume", "base_volume", "basevolume", "volume_base", "volumefrom", "volume_traded",
               "total_traded_quantity", "tick_volume", "tickvol", "tickvolume", "v"),
    "ticks": ("tick_volume", "tickvol", "tickvolume"),
    "adjusted": ("adj_close", "adjclose", "adjusted_close", "adjustedclose", "close_adj"),
    "price": ("price",),
    "size": ("size", "qty", "quantity", "amount"),
    "funding_rate": ("realized_rate", "realizedrate", "real_funding_rate", "funding_rate", "fundingrate",
                     "last_funding_rate", "lastfundingrate", "rate"),
}  # fmt: skip
VOLUME = re.compile("vol|amount|quantity|qty|turnover|size|contracts")  # in the name of a column that may be a volume
QUOTES = ("currency", "quote", "to", "usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "try")
NOT_CLEAR = {
    "close": ("last", "latest", "price"),
    "symbol": NAMES,
    "volume": (*ALIASES["ticks"], "total_traded_quantity"),
}  # read, and told
TRADES = "`qt data resample DATA --interval 5m --out bars.parquet` makes bars of them"
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


def plain(name: str) -> str:
    """Return the name of a column as it is compared: small letters, words joined by `_`, without brackets, stars and a leading number.

    >>> plain("<OPEN>"), plain("Adj Close**"), plain("1. open"), plain("Volume (BTC)")
    ('open', 'adj_close', 'open', 'volume_btc')
    """
    words = re.sub(r"[\s<>*()\[\]/.:_#-]+", "_", name.strip().lower()).strip("_")
    return re.sub(r"^\d+_(?=[a-z])", "", words)


def find_columns(names: Iterable[str], wanted: Sequence[str], source: str, reading: Reading | None = None) -> dict[str, str]:
    """Map each role of `wanted`, and what else is there of the known ones, to the column that holds it.

    Beside `wanted` these are `time`, `hours` (the time of day beside a date), `close_time`, `symbol`, and of candles `closed` (a flag),
    `funding_rate`, `ticks` and `adjusted`. Candles may lack a volume. reading: its notes say which column was taken where another could
    be meant. Raises UserError that names every column that is missing or there twice.
    """
    names = [str(name) for name in names]
    by_name: dict[str, list[str]] = {}
    for name in names:
        if len(name) == 1 and name.isupper() and name.lower() in names:  # candles of exchanges: t and T, l and L
            by_name.setdefault({"T": "close_time"}.get(name, name), []).append(name)
        else:
            by_name.setdefault(plain(name), []).append(name)
    is_candles = "close" in wanted
    times = (*TIME_NAMES, *FUNDING_TIMES) if "funding_rate" in wanted else TIME_NAMES
    aliases = {**ALIASES, "time": times}
    if not any(name in by_name for name in (*times, *ALIASES["close_time"])):
        aliases["time"] = NAMELESS
    optional = ("time", "close_time", "symbol") + (("funding_rate", "ticks", "adjusted") if is_candles else ())
    optional += ("closed",) if is_candles or not wanted else ()
    chosen = {role: next((a for a in aliases[role] if a in by_name), None) for role in dict.fromkeys((*optional, *wanted))}
    if chosen.get("closed") == "x" and not {"o", "h", "l", "c"} <= by_name.keys():  # a flag in exchanges' streams, anything elsewhere
        chosen["closed"] = None
    unclear: list[str] = []
    if is_candles and chosen["close"] == "price" and not (chosen["open"] or chosen["high"] or chosen["low"]):
        for size in (alias for alias in ALIASES["size"] if alias in by_name):
            raise DataError(f"{source} must hold candles, was trades (columns price and {_shown(by_name[size][0])}); {TRADES}")
    if is_candles and chosen["volume"] is None:
        with noting(unclear):
            chosen["volume"] = _base_volume(by_name, source)
    if chosen["time"] in DAYS and "time" in by_name:
        chosen["hours"] = "time"
    kept = {role: alias for role, alias in chosen.items() if alias is not None}
    twice = [alias for alias in dict.fromkeys(kept.values()) if len(by_name[alias]) > 1]
    missing = [role for role in wanted if role not in kept and not (is_candles and role == "volume")]
    if "time" not in kept and "close_time" not in kept:
        missing.insert(0, "timestamp")
    again = "; ".join(f"{source} must have one column {alias}, was {' and '.join(map(_shown, by_name[alias]))}" for alias in twice)
    if missing:
        need = ", ".join(["timestamp", "symbol", *wanted])
        seen = ", ".join(_shown(name) for name in names[:12]) or "none"
        seen += ", ..." if len(names) > 12 else ""
        text = f"{source} must have the columns {need}; missing: {', '.join(missing)}; found: {seen}"
        raise DataError("; ".join([text, *([again] if again else []), *unclear]))
    if again or unclear:
        raise DataError("; also: ".join([*([f"{again}; rename or drop one"] if again else []), *unclear]))
    if reading is not None:
        _tell_choices(kept, aliases, by_name, reading)
    return {role: by_name[alias][0] for role, alias in kept.items()}


def _tell_choices(kept: dict[str, str], aliases: Mapping[str, Sequence[str]], by_name: dict[str, list[str]], reading: Reading) -> None:
    """Note which column was read where its name does not say so by itself, or where others of the file could be meant too."""
    for role, alias in kept.items():
        if role in ("hours", "ticks", "adjusted"):  # told where they are read
            continue
        known = [name for name in aliases[role] if name not in NAMES or alias in NAMES]  # `market` beside `symbol` is no second one
        others = [name for name in by_name if name in known and name not in kept.values()]
        if role == "volume" and alias not in aliases[role]:
            others = [name for name in by_name if re.fullmatch(r"volume_[a-z0-9]{2,10}", name) and name != alias]
        if others or alias in NOT_CLEAR.get(role, ()):
            left = " and ".join(_shown(by_name[name][0]) for name in others)
            rest = f"; {left} {'is' if len(others) == 1 else 'are'} not read" if others else ""
            text = f"{role.replace('_', ' ')} is column {_shown(by_name[alias][0])}"
            if not any(note.startswith(text) for note in reading.notes):  # of a file whose other columns are gone by now
                reading.note(text + rest)


def _shown(name: str) -> str:
    return name if name.isprintable() and name else repr(name)[:20]


def _base_volume(by_name: Mapping[str, list[str]], source: str) -> str | None:
    """Return the one of `Volume BTC`, `Volume USDT` that counts base units, None without any. Raises UserError where it is not clear."""
    named = [name for name in by_name if re.fullmatch(r"volume_[a-z0-9]{2,10}", name)]
    base = [name for name in named if name.removeprefix("volume_") not in QUOTES]
    if len(base) > 1:
        written = " and ".join(_shown(by_name[name][0]) for name in named)
        raise DataError(f"{source} must have one volume in base units, was {written}; rename that one to volume")
    if base:
        return base[0]
    known = {alias for role, names in ALIASES.items() if role != "size" for alias in names} | {*TIME_NAMES, *NAMELESS}
    near = [name for name in by_name if name not in known and (VOLUME.search(name) or difflib.get_close_matches(name, ["volume"], 1, 0.6))]
    near += [name for name in ("up", "down") if {"up", "down"} <= set(by_name)]  # TradeStation: volume is their sum
    if near:  # 0 would be wrong where a volume stands under another name
        written = " or ".join(_shown(by_name[name][0]) for name in near)
        raise DataError(f"{source} must have a column volume, was {written}; rename the volume, or drop what is none")
    return None


def header_zone(name: str) -> str | None:
    """Return the zone that the name of a time column says: `Gmt time`, `Time (EET)`."""
    words = plain(name).split("_")
    return "UTC" if "utc" in words or "gmt" in words else "EET" if "eet" in words else None


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
        reading.notes[:] = [note for note in reading.notes if not note.startswith(f"symbol is column {_shown(left)}")]
        reading.note(f"column {_shown(left)} names no symbol and is not read")
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


@contextmanager
def noting(problems: list[str]) -> Iterator[None]:
    """Keep the sentence of a UserError, so that others can be told with it."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


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
