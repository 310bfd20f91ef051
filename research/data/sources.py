"""Where do candles come from? Parquet, CSV, folders of them, pandas, polars and NumPy, all read into Rows."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from research.data.schema import VALUES, Rows, find_columns, join, rows_of
from research.errors import UserError

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz", ".txt", ".tsv")
EXPECTED = "expected a Parquet or CSV file, a folder of them, sample, simulated:NAME, or a pandas or polars frame"
# A time frame and dates at the end of a file name are not part of the symbol: BTCUSDT_1h, BTC_USDT-1h-futures, EURUSD-5m-2024-01.
TAIL = re.compile(r"([-_.](\d+(m|h|d|w|mo|min|hour|day)|daily|hourly|futures|spot|\d{4}([-_]\d{2}){0,2}))+$", re.IGNORECASE)


def read_rows(source: Any, lone: str | None = None) -> Rows:
    """Read candles from a path, a frame or a dict of arrays; `lone` names the symbol where the data does not. Raises UserError."""
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        files = candle_files(path)
        return join([rows_of(read_table(f, VALUES), f.name, lone or symbol_of(f)) for f in files], path.name)
    return rows_of(arrow_table(source), "the data", lone)


def candle_files(path: Path, what: str = "data") -> list[Path]:
    """Return the files that a path stands for, sorted by name. Raises UserError when there is none."""
    if not path.exists():
        raise UserError(f"{what} must exist, was {str(path)!r} (not found); {EXPECTED}")
    if path.is_file():
        return [path]
    files = sorted(f for f in path.iterdir() if f.is_file() and f.name.lower().endswith((*PARQUET, *CSV[:2])))
    if not files:
        raise UserError(f"{path} must hold .parquet or .csv files, was a folder without any")
    return files


def symbol_of(path: Path) -> str:
    """Read the symbol from the name of a file.

    >>> symbol_of(Path("BTC_USDT-1h.parquet")), symbol_of(Path("EURUSD_5m_2024.csv.gz"))
    ('BTC_USDT', 'EURUSD')
    """
    stem = re.sub(r"\.(parquet|pq|csv|txt|tsv)(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    return TAIL.sub("", stem) or stem


def read_table(path: Path, wanted: tuple[str, ...]) -> pa.Table:
    """Read the columns of `wanted`, time and symbol from one file. Raises UserError when it is not what its name says."""
    if path.stat().st_size == 0:
        raise UserError(f"{path.name} must hold candles, was an empty file (0 bytes)")
    name = path.name.lower()
    try:
        if name.endswith(PARQUET):
            return _read_parquet(path, wanted)
        if name.endswith(CSV):
            return _read_csv(path, wanted)
    except PermissionError:
        raise UserError(f"{path} must be readable, was not (permission denied); check its owner and mode") from None
    raise UserError(f"{path.name} must end in {', '.join((*PARQUET, *CSV))}, was {path.suffix or 'without an ending'}; {EXPECTED}")


def open_parquet(path: Path, symbol: str | None = None, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file; the column `symbol` is read as a dictionary. Raises UserError when it is none."""
    try:
        return pq.ParquetFile(path, read_dictionary=[symbol] if symbol else None, **options)
    except PermissionError:
        raise UserError(f"{path} must be readable, was not (permission denied); check its owner and mode") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path.name} must be a Parquet file, was not or is cut short ({str(error).splitlines()[0][:80]})") from None


def _read_parquet(path: Path, wanted: tuple[str, ...]) -> pa.Table:
    found = find_columns(open_parquet(path).schema_arrow.names, wanted, path.name)
    try:
        with open_parquet(path, found.get("symbol")) as file:
            return file.read(columns=list(dict.fromkeys(found.values())))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path.name} must be a whole Parquet file, was damaged ({str(error).splitlines()[0][:80]})") from None


def column_names(source: Any) -> list[str]:
    """Return the names of the columns, of a folder those of its first file. Raises UserError where there is nothing to read."""
    if not isinstance(source, str | Path):
        return [str(name) for name in getattr(source, "columns", source)]
    path = candle_files(Path(source).expanduser())[0]
    return list(open_parquet(path).schema_arrow.names) if path.name.lower().endswith(PARQUET) else _header(path)[0]


def _header(path: Path) -> tuple[list[str], str]:
    """Return the column names of a CSV file and its delimiter."""
    with gzip.open(path, "rt", errors="replace") if path.name.lower().endswith(".gz") else path.open(errors="replace") as file:
        line = file.readline().lstrip("\ufeff")
    delimiter = max(",;\t|", key=line.count)
    return [name.strip().strip('"') for name in line.strip("\r\n").split(delimiter)], delimiter


def _read_csv(path: Path, wanted: tuple[str, ...]) -> pa.Table:
    names, delimiter = _header(path)
    found = find_columns(names, wanted, path.name)
    raw = {name: role for role, name in found.items()}
    types = {name: pa.string() if raw[name] in ("time", "close_time", "symbol") else pa.float64() for name in raw}
    try:
        return pacsv.read_csv(
            path,
            read_options=pacsv.ReadOptions(column_names=names, skip_rows=1),
            parse_options=pacsv.ParseOptions(delimiter=delimiter),
            convert_options=pacsv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False),
        )
    except pa.ArrowInvalid as error:
        raise UserError(f"{path.name} must be a table of numbers, was not: {str(error).splitlines()[0][:160]}; correct that row") from None


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
    raise UserError(f"data must be candles, was {type(data).__name__}; {EXPECTED}")


def _from_pandas(frame: pd.DataFrame) -> pa.Table:
    if frame.columns.nlevels > 1:
        raise UserError("the frame must have one level of columns, was several; use frame.stack() to get one row per time and symbol")
    if not isinstance(frame.index, pd.RangeIndex):
        names = [name or ("timestamp" if i == 0 else "symbol") for i, name in enumerate(frame.index.names)]
        if isinstance(frame.index, pd.DatetimeIndex | pd.MultiIndex) and not set(names) & set(frame.columns):
            frame = frame.reset_index(names=names)
    arrays = []
    for position, name in enumerate(frame.columns):
        column = frame.iloc[:, position]
        if column.dtype == object and str(name).lower() in ("timestamp", "open_time", "close_time", "date", "datetime", "time"):
            try:
                column = pd.to_datetime(column)
            except (ValueError, TypeError) as error:
                is_mixed = any(word in str(error).lower() for word in ("mix", "tz-aware", "tz-naive"))
                mixed = "one time zone, was mixed" if is_mixed else f"times, was not so ({str(error)[:80]})"
                raise UserError(f"column {name} must have {mixed}; use pd.to_datetime(column, utc=True) first") from None
        try:
            arrays.append(pa.array(column, from_pandas=True))
        except pa.ArrowException:
            arrays.append(pa.nulls(len(column)))  # an unrelated column of objects; a needed one is refused by its type
    return pa.Table.from_arrays(arrays, names=[str(name) for name in frame.columns])


def _from_arrays(arrays: dict[str, np.ndarray]) -> pa.Table:
    """Accept long arrays [N], or planes [n, S] with `symbols` [S] and a time [n]."""
    wide = {name: a for name, a in arrays.items() if a.ndim == 2}
    if wide:
        names = arrays.pop("symbols", None)
        shape = next(iter(wide.values())).shape
        if names is None or names.shape != shape[1:] or any(a.shape != shape for a in wide.values()):
            raise UserError(f"planes must all be [n, S] with symbols [S], was { ({k: a.shape for k, a in wide.items()}) }")
        flat = {name: a.ravel() if a.ndim == 2 else np.repeat(a, shape[1]) for name, a in arrays.items()}
        arrays = {**flat, "symbol": np.tile(names, shape[0])}
    lengths = {name: len(a) if a.ndim == 1 else -1 for name, a in arrays.items()}
    if len(set(lengths.values())) > 1 or -1 in lengths.values():
        raise UserError(f"arrays must be of one length, was {lengths}")
    try:
        return pa.table({name: pa.array(a) for name, a in arrays.items()})
    except pa.ArrowInvalid as error:
        raise UserError(f"arrays must hold numbers, times and names, was not so ({str(error).splitlines()[0][:100]})") from None
