"""Candle sources: Parquet, Arrow, text files, folders of them, pandas, polars and NumPy, all read into Rows."""

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from research.data.clock import iso
from research.data.json_tables import JSON
from research.data.rows import Rows, join, rows_of
from research.data.schema import ALIASES, NAMELESS, TIME_NAMES, VALUES, find_columns, plain
from research.data.texts import find_layout, is_text, read_text, stacked, unpack
from research.data.unread import bare
from research.data.unread import is_text as is_text_column
from research.data.zones import Reading
from research.errors import DataError
from research.files import reason

PARQUET = (".parquet", ".pq")
ARROW = (".feather", ".arrow", ".ipc")
CSV = (".csv", ".csv.gz", ".txt", ".tsv")
IN_FOLDER = (*PARQUET, *ARROW, ".csv", ".csv.gz", ".zip")
EXPECTED = "expected a Parquet or CSV file, a folder of them, sample, simulated:NAME, or a pandas or polars frame"
# A time frame and dates at the end of a file name are not part of the symbol: BTCUSDT_1h, BTC_USDT-1h-futures, EURUSD-5m-2024-01,
# ETHUSDT-1M-2024, EURUSD_M15_202401020000_202412312300, DAT_ASCII_EURUSD_M1_2023.
FRAME = r"\d+(m|h|d|w|mo|min|hour|day|month)|(m|h|d|w|mn)\d{1,3}|daily|hourly|weekly|monthly|futures|spot"
MINUTES = "(1|5|15|30|60|240|720|1440|10080|43200)"  # bare, as MetaTrader and Kraken write a time frame: EURUSD60, XBTUSD_60
DATE = r"\d{4}([-_]\d{2}){0,2}|(19|20)\d{2}(0[1-9]|1[0-2])((\d{2})(\d{4})?(\d{2})?)?|\d{2}\.\d{2}\.\d{4}"
TAIL = re.compile(
    rf"(_{MINUTES}(?=_))?(([-_.]|,? )({FRAME}|{DATE})|_candlestick_.*|, ?\d+[SDWM]?)+$|_{MINUTES}$|(?<=^[a-z]{{6}}){MINUTES}$",
    re.IGNORECASE,
)

PART = re.compile(r"(part|chunk|shard|batch)[-_.]?\d+", re.IGNORECASE)  # of a table that was written in several files
COPY = re.compile(r" ?\(\d{1,2}\)$")  # a browser's second download: BTCUSDT (1)
MONTH = r"[-_ .](jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"


def read_rows(source: Any, lone: str | None = None, reading: Reading | None = None, wanted: tuple[str, ...] = VALUES) -> Rows:
    """Read candles (or `wanted`) from a path, a frame or a dict; `lone` names the symbol where the data does not. Raises UserError."""
    reading = reading or Reading()
    if not isinstance(source, str | Path):
        rows = oldest_first(rows_of(arrow_table(source), "the data", lone, wanted, reading), reading)
        return replace(rows, notes=tuple(note.replace(" of the data", "") for note in reading.notes))
    path = Path(source).expanduser()
    parts, files = [], candle_files(path)
    for file in files:
        own, named = replace(reading, notes=[]), symbol_of(file)
        table, name = read_table(file, wanted, own), lone if lone and len(files) == 1 else named
        if own.symbol and bare(own.symbol) != bare(name):
            name = own.symbol
        if name not in (named, own.symbol) and not any(plain(column) in ALIASES["symbol"] for column in table.column_names):
            own.note(f"no column names the symbol; it is {name} as it was asked for, and the file is called {file.name}")
        rows = oldest_first(closed_when_made(rows_of(table, file.name, name, wanted, own), own), own)
        if name == own.symbol != named and rows.symbols == (name,) and bare(name) != bare(named):
            own.note(f"the symbol is {name}, as the document says; the file is called {file.name}")
        parts.append(replace(rows, notes=tuple(note.replace(f" of {file.name}", "") for note in own.notes)))
    check_parts([(file, part) for file, part in zip(files, parts) if part.symbols == (symbol_of(file),)], path.name)
    rows = join(parts, path.name)
    if not rows.n:
        raise DataError(f"{path.name} must have rows, was {'a header alone' if len(files) == 1 else 'a folder of headers alone'}")
    return rows


def check_parts(named: list[tuple[Path, Rows]], source: str) -> None:
    """Refuse files, named as their symbols are, that are parts of one. Raises UserError.

    They are called `part-0`, or differ in numbers and months alone and follow each other in time.
    """
    files = [file for file, rows in sorted(named, key=lambda pair: int(pair[1].time.min()) if pair[1].n else 0) if rows.n]
    symbols = {symbol_of(file) for file in files}
    if len(symbols) < 2:
        return
    spans = sorted((int(rows.time.min()), int(rows.time.max())) for _, rows in named if rows.n)
    follow = all(before[1] < after[0] for before, after in pairwise(spans))
    stems = {re.sub(MONTH, "", re.sub(r"\d+", "", symbol), flags=re.IGNORECASE) for symbol in symbols}
    if all(PART.match(symbol) for symbol in symbols) or (follow and len(stems) == 1):
        raise DataError(
            f"{source} must have a column symbol, or files named after their symbols, was parts alone ({files[0].name}, {files[1].name}); "
            "name parts of one symbol with a date (BTCUSDT-2024-01.csv) or put them into a folder symbol=BTCUSDT"
        )


def closed_when_made(rows: Rows, reading: Reading) -> Rows:
    """Leave out the newest candle where the document was made before it closed."""
    steps, counts = np.unique(np.diff(np.unique(rows.time)), return_counts=True)
    if not reading.made or not len(steps) or "close" in (rows.label, reading.label):
        return rows
    newest, step = int(rows.time.max()), rows.interval or int(steps[counts.argmax()])
    if not newest <= reading.made < newest + step:
        return rows
    closed = rows.time < newest
    n = int(np.sum(~closed))
    reading.note(f"{n:,} {'candle' if n == 1 else 'candles'} had not closed when the document was made ({iso(reading.made)}); left out")
    return rows[closed]


def oldest_first(rows: Rows, reading: Reading) -> Rows:
    """Turn rows round whose times go down, as many exports write them."""
    order = np.argsort(rows.code, kind="stable") if np.any(np.diff(rows.code) < 0) else slice(None)
    step = np.diff(rows.time[order])[np.diff(rows.code[order]) == 0]
    if 2 * int((step < 0).sum()) <= int((step != 0).sum()) or not len(step):
        return rows
    reading.note("the newest row stands first; read from the last to the first")
    return rows[::-1]


def candle_files(path: Path, what: str = "data") -> list[Path]:
    """Return the files that a path stands for, sorted by name. Raises UserError when there is none."""
    if not path.exists():
        raise DataError(f"{what} must exist, was {str(path)!r} (not found); {EXPECTED}")
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{what} must be a file or a folder, was a pipe or a device ({str(path)!r}); write it to a file first")
    files = sorted(f for f in path.iterdir() if f.is_file() and f.name.lower().endswith(IN_FOLDER) and not f.name.startswith("."))
    if not files:
        folders = sum(f.is_dir() for f in path.iterdir())
        more = f"; folders in it ({folders}) are not looked into, name one" if folders else ""
        raise DataError(f"{path} must hold .parquet or .csv files, was a folder without any{more}")
    return files


def symbol_of(path: Path) -> str:
    """Read the symbol from the name of a file.

    >>> symbol_of(Path("BTC_USDT-1h.parquet")), symbol_of(Path("EURUSD_5m_2024.csv.gz"))
    ('BTC_USDT', 'EURUSD')

    A folder of a partitioned table says it before: `symbol=BTCUSDT/part-0.parquet`.
    """
    for folder in reversed(path.parts[:-1]):
        key, _, value = folder.partition("=")
        if value and plain(key) in ALIASES["symbol"]:
            return unquote(value)
    stem = re.sub(r"(\.(parquet|pq|feather|arrow|ipc|csv|txt|tsv|json|jsonl|ndjson))?(\.(gz|zip))?$", "", path.name, flags=re.IGNORECASE)
    stem = re.sub(r"^DAT_[A-Z]+_", "", stem)
    stem = COPY.sub("", stem) or stem
    return TAIL.sub("", stem) or stem


def read_table(path: Path, wanted: tuple[str, ...], reading: Reading | None = None) -> pa.Table:
    """Read the columns of `wanted`, time and symbol from one file; what is assumed of its layout goes to the notes of `reading`.

    Raises UserError when it is not what its name says.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path.name} must hold candles, was an empty file (0 bytes)")
    name = path.name.lower()
    try:
        if name.endswith(PARQUET):
            return _read_parquet(path, wanted, reading)
        if name.endswith(ARROW):
            return _read_arrow(path, wanted, reading)
        if is_text(name):
            return read_text(path, wanted, reading or Reading())
    except PermissionError:
        raise DataError(f"{path} must be readable, was not (permission denied); check its owner and mode") from None
    endings = ", ".join((*PARQUET, *CSV, ".zip", *ARROW, *JSON))
    raise DataError(f"{path.name} must end in {endings}, was {path.suffix or 'without an ending'}; {EXPECTED}")


def open_parquet(path: Path, symbol: str | None = None, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file; the column `symbol` is read as a dictionary. Raises UserError when it is none."""
    try:
        return pq.ParquetFile(path, read_dictionary=[symbol] if symbol else None, **options)
    except PermissionError:
        raise DataError(f"{path} must be readable, was not (permission denied); check its owner and mode") from None
    except KeyError:
        raise DataError(f"{path.name} must hold text in its column {symbol}, was lists or tables; write one name a row") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} must be a whole Parquet file, was not ({reason(error).partition('. ')[0]}); write it again") from None


def _read_parquet(path: Path, wanted: tuple[str, ...], reading: Reading | None) -> pa.Table:
    found = find_columns(open_parquet(path).schema_arrow.names, wanted, path.name, reading)
    try:
        with open_parquet(path, found.get("symbol")) as file:
            return file.read(columns=_columns(file.schema_arrow, found))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} must be a whole Parquet file, was damaged ({reason(error)}); write it again") from None


def _read_arrow(path: Path, wanted: tuple[str, ...], reading: Reading | None) -> pa.Table:
    """Read Feather or Arrow IPC, a file or a stream."""
    data = pa.py_buffer(path.read_bytes())
    try:
        try:
            table = pa.ipc.open_file(data).read_all()
        except pa.ArrowInvalid:
            table = pa.ipc.open_stream(data).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise DataError(f"{path.name} must be a whole Arrow file, was not ({reason(error)}); write it again") from None
    found = find_columns(table.column_names, wanted, path.name, reading)
    return table.select(_columns(table.schema, found))


def _columns(schema: pa.Schema, found: Mapping[str, str]) -> list[str]:
    """Return the columns to read: those that were found, and where none is the symbol the texts, one of which may name it."""
    names = list(dict.fromkeys(found.values()))
    if "symbol" in found:
        return names
    return names + [f.name for f in schema if f.name not in names and schema.names.count(f.name) == 1 and is_text_column(f.type)]


def column_names(source: Any) -> list[str]:
    """Return the names of the columns, of a folder those of its first file. Raises UserError where there is nothing to read."""
    if not isinstance(source, str | Path):
        return [str(name) for name in getattr(source, "columns", source)]
    path = candle_files(Path(source).expanduser())[0]
    name = path.name.lower()
    if name.endswith(PARQUET):
        return list(open_parquet(path).schema_arrow.names)
    return find_layout(unpack(path, Reading()), path.name, Reading()).names if is_text(name) else read_table(path, ()).column_names


def arrow_table(data: Any) -> pa.Table:
    """Turn a pandas or polars frame, an Arrow table or a dict of arrays into an Arrow table. Raises UserError."""
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pd.DataFrame):
        return _from_pandas(data)
    if hasattr(data, "collect"):  # a lazy polars frame
        data = data.collect()
    if hasattr(data, "to_arrow"):
        return data.to_arrow()
    if isinstance(data, Mapping):
        return _from_arrays({str(name): np.asarray(values) for name, values in data.items()})
    raise DataError(f"data must be candles, was {type(data).__name__}; {EXPECTED}")


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    if frame.columns.nlevels > 1:
        frame = stacked(frame)
    frame = _with_index(frame)
    arrays = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if isinstance(column.dtype, pd.PeriodDtype):
            column = column.dt.to_timestamp(how="start")
        if column.dtype == object and plain(str(name)) in (*TIME_NAMES, *NAMELESS, "close_time"):
            column = _instants(column, str(name))
        try:
            arrays.append(pa.array(column, from_pandas=True))
        except pa.ArrowException:
            arrays.append(pa.nulls(len(column)))  # an unrelated column of objects; a needed one is refused by its type
    return pa.Table.from_arrays(arrays, names=[str(name) for name in frame.columns])


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn an index that holds times, or times and symbols, into columns; levels that stand among the columns too are left out."""
    index = frame.index
    if isinstance(index, pd.RangeIndex):
        return frame
    here = {plain(str(name)) for name in frame.columns}
    has_time = bool(here & {*TIME_NAMES, "close_time"})
    if index.nlevels == 1:
        if has_time and not isinstance(index, pd.DatetimeIndex | pd.PeriodIndex):
            return frame
        is_named = index.name is not None and plain(str(index.name)) in (*TIME_NAMES, "close_time")
        names = [str(index.name) if is_named else "timestamp"]  # whatever it is called, nothing else can be the time
    else:
        names = _level_names(index, has_time)
    new = [level for level, name in enumerate(names) if plain(name) not in here]
    levels = {names[level]: index.get_level_values(level) for level in new}
    return frame.reset_index(drop=True).assign(**levels) if new else frame


def _level_names(index: pd.MultiIndex, has_time: bool) -> list[str]:
    """Name the levels of an index: one without a name holds times, row numbers or symbols (`pd.concat` of a dict puts those there)."""
    levels = [index.get_level_values(level) for level in range(index.nlevels)]
    names = ["" if name is None else str(name) for name in index.names]
    is_time = [isinstance(values, pd.DatetimeIndex | pd.PeriodIndex) for values in levels]
    has_time = has_time or any(is_time) or any(plain(name) in (*TIME_NAMES, "close_time") for name in names if name)
    for level, values in enumerate(levels):
        if not names[level]:
            is_number = has_time and pd.api.types.is_integer_dtype(values.dtype)
            names[level] = "timestamp" if is_time[level] or not has_time else "row" if is_number else "symbol"
            has_time = True
    return names


def _instants(column: pd.Series, name: str) -> pd.Series:
    """Read a column of objects: times with zones, which may differ, as UTC. Raises UserError on times with a zone among others without."""
    kinds = {isinstance(value, dt.datetime) and value.tzinfo is not None for value in column if isinstance(value, dt.datetime)}
    if kinds == {True, False}:
        raise DataError(f"column {name} must have one time zone, was mixed; use pd.to_datetime(column, utc=True) first")
    return pd.to_datetime(column, utc=True) if kinds == {True} and all(isinstance(v, dt.datetime) for v in column) else column


def _from_arrays(arrays: dict[str, np.ndarray]) -> pa.Table:
    """Accept long arrays [N], or planes [n, S] with `symbols` [S] and a time [n]."""
    wide = {name: a for name, a in arrays.items() if a.ndim == 2}
    if wide:
        names = arrays.pop("symbols", None)
        shape = next(iter(wide.values())).shape
        if names is None or names.shape != shape[1:] or any(a.shape != shape for a in wide.values()):
            raise DataError(f"planes must all be [n, S] with symbols [S], was { ({k: a.shape for k, a in wide.items()}) }")
        flat = {name: a.ravel() if a.ndim == 2 else np.repeat(a, shape[1]) for name, a in arrays.items()}
        arrays = {**flat, "symbol": np.tile(names, shape[0])}
    lengths = {name: len(a) if a.ndim == 1 else -1 for name, a in arrays.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise DataError(f"arrays must be of one length, was {lengths}")
    units = ("datetime64[Y]", "datetime64[M]", "datetime64[W]", "datetime64[h]", "datetime64[m]")  # Arrow does not know them
    try:
        return pa.table({name: pa.array(a.astype("M8[s]") if a.dtype.name in units else a) for name, a in arrays.items()})
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"arrays must hold numbers, times and names, was not so ({reason(error)})") from None
