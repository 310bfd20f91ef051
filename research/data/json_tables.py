"""Tables in JSON, as exchanges answer and frames are saved, written as CSV for the one reader of texts."""

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

from research.data.zones import Reading, is_zone
from research.errors import DataError
from research.files import reason

JSON = (".json", ".jsonl", ".ndjson")
DEEPEST = 4  # levels around the table
SYMBOLS = ("symbol", "ticker", "pair", "instrument", "instid", "instrument_name", "product_id", "currency_pair", "coin")
KEY = re.compile(r"(?=.*[A-Z])[A-Z0-9]+([-_/.:][A-Z0-9]+)*")  # of a table: `AAPL`, `BTC/USDT:USDT`, `XXBTZUSD`
NO_KEY = ("DATA", "RESULT", "RESULTS", "ROWS", "LIST", "OHLC", "OHLCV", "BARS", "CANDLES", "KLINES", "PRICES", "VALUES", "ITEMS", "TABLE",
          "HISTORY", "QUOTES", "RECORDS", "RESPONSE", "PAYLOAD", "BODY", "CHART", "OUTPUT", "SERIES")  # fmt: skip
MADE = ("time", "ts")
HEADERS = ("columns", "fields", "headers", "header", "column_names", "names")
ZONES, PLACES = ("time_zone", "timezone"), ("exchange_timezone", "exchange_time_zone", "exchangetimezonename")
EPOCHS = {10: 10**9, 13: 10**6, 16: 10**3, 19: 1}  # digits to ns
FORMS = "write a list of records, one record a line, or columns of one length"


def as_csv(data: bytes, name: str, reading: Reading) -> bytes:
    """Return the one table of a JSON text as CSV, every number as it is written. Raises UserError where there is none, or several.

    What the document says around it, its symbol and when it was made, is kept in `reading`; rows behind its last closed one are left out.
    """
    try:
        whole = _parse(data.decode("utf-8-sig"))
        table = _table(whole, DEEPEST)
        if table is not None:
            if isinstance(whole, dict):
                reading.clock = next((zone for zone in _said(whole, DEEPEST, ZONES) if is_zone(zone)), "")
                reading.place = next((zone for zone in _said(whole, DEEPEST, PLACES) if is_zone(zone)), "")
                names = (name for name in _said(whole, DEEPEST, SYMBOLS) if re.search("[A-Za-z]", name))
                reading.symbol = next(names, "") or next(_keys(whole, DEEPEST), "")
                made = next((str(whole[key]) for key in MADE if re.fullmatch(r"\d+", str(whole.get(key, "")))), "")
                reading.made = int(made or 0) * EPOCHS.get(len(made), 0)
                table = _closed(table, next(_lasts(whole, DEEPEST), ""), reading)
            return _written(table).encode()
    except (ValueError, RecursionError, csv.Error) as error:
        raise DataError(f"{name} must be JSON, was not ({reason(error)}); {FORMS}") from None
    raise DataError(f"{name} must hold one table, was none or several; {FORMS}")


def _written(table: list[Any]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    if isinstance(table[0], dict):
        names = list(dict.fromkeys(key for row in table for key in row))
        writer.writerow(names)
        table = [[row.get(key) for key in names] for row in table]
    writer.writerows([_cell(value) for value in row] for row in table)
    return out.getvalue()


def _parse(text: str) -> Any:
    """Read one JSON value, or one a line."""
    read = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str).decode
    try:
        return read(text)
    except ValueError:
        return [read(line) for line in text.split("\n") if line.strip()]


def _table(value: Any, depth: int) -> list[Any] | None:
    """Find the rows: all records, or all lists, of which there is one such table; None without or with several."""
    if isinstance(value, list):
        return value if value and any(all(isinstance(row, kind) for row in value) for kind in (dict, list)) and not _wraps(value) else None
    if not isinstance(value, dict) or not depth:
        return None
    if table := _columns(value) or _headed(value):
        return table
    if len(value) > 1 and all(isinstance(row, dict) and row and not _nests(row) for row in value.values()):  # rows by their times
        return [{"": key, **row} for key, row in value.items()]
    parts = [part for key, part in value.items() if isinstance(part, dict | list) and not (key == "schema" and "data" in value)]
    found = [table for part in parts if (table := _table(part, depth - 1))]
    return found[0] if len(found) == 1 else None


def _columns(value: dict[str, Any]) -> list[Any] | None:
    """Return columns as rows: lists of one length, or, as pandas saves a frame, objects with the same keys, which are the index."""
    lists = {key: column for key, column in value.items() if isinstance(column, list)}
    if len(lists) > 3 and len({len(column) for column in lists.values()}) == 1 and not any(_nests(column) for column in lists.values()):
        return [dict(zip(lists, row)) for row in zip(*lists.values())]
    if {"open", "close"} <= {str(key).lower() for key in value} and all(isinstance(column, dict) for column in value.values()):
        index = list(next(iter(value.values())))
        if all(list(column) == index for column in value.values()):
            return [{"": key, **{name: column[key] for name, column in value.items()}} for key in index]
    return None


def _headed(value: dict[str, Any]) -> list[Any] | None:
    """Return a list of rows below the names of their columns, which stand beside it, with its index where pandas saved one."""
    rows = [part for part in value.values() if isinstance(part, list) and part and all(isinstance(row, list) for row in part)]
    names = [value[key] for key in HEADERS if isinstance(value.get(key), list)]
    if len(rows) != 1 or len(names) != 1 or not all(isinstance(name, str) for name in names[0]):
        return None
    if {len(row) for row in rows[0]} != {len(names[0])}:
        return None
    index = value.get("index")
    if isinstance(index, list) and len(index) == len(rows[0]):
        return [["", *names[0]], *([at, *row] for at, row in zip(index, rows[0]))]
    return [names[0], *rows[0]]


def _said(value: dict[str, Any], depth: int, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts that the objects around the table hold under one of the names."""
    for key, part in value.items():
        if isinstance(part, str) and re.sub(r"^\d+\. ", "", key.strip().lower()).replace(" ", "_") in names:
            yield part.strip()
    for part in value.values():
        if isinstance(part, dict) and depth:
            yield from _said(part, depth - 1, names)


def _keys(value: dict[str, Any], depth: int) -> Iterator[str]:
    """Yield the keys of tables that are written as symbols are."""
    for key, part in value.items():
        is_table = isinstance(part, list) and bool(part) and isinstance(part[0], dict | list)
        if is_table and KEY.fullmatch(key) and key not in NO_KEY:
            yield key
        elif isinstance(part, dict) and depth:
            yield from _keys(part, depth - 1)


def _lasts(value: dict[str, Any], depth: int) -> Iterator[str]:
    """Yield the time `last` beside a table, as Kraken writes that of the last candle that has closed."""
    if isinstance(value.get("last"), str) and any(isinstance(part, list) for part in value.values()):
        yield value["last"]
    for part in value.values():
        if isinstance(part, dict) and depth:
            yield from _lasts(part, depth - 1)


def _closed(table: list[Any], last: str, reading: Reading) -> list[Any]:
    """Leave out the rows behind the one of the time `last`."""
    times = [row[0] if isinstance(row, list) and row else None for row in table]
    if last not in times or not all(isinstance(time, str) and time.isdigit() for time in times):
        return table
    closed = [row for row in table if int(row[0]) <= int(last)]
    if n := len(table) - len(closed):
        reading.note(f"{n:,} {'candle' if n == 1 else 'candles'} behind the document's last closed one (last {last}) left out")
    return closed


def _nests(value: Any) -> bool:
    return any(isinstance(part, dict | list) for part in (value.values() if isinstance(value, dict) else value))


def _wraps(value: list[Any]) -> bool:
    """Say whether a list of one record holds a table further down."""
    return len(value) == 1 and _nests(value[0])


def _cell(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value)
