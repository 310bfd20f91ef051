"""Tables in JSON, as exchanges answer and frames are saved, written as CSV for the one reader of texts."""

import csv
import io
import json
from typing import Any

from research.errors import UserError
from research.files import reason

JSON = (".json", ".jsonl", ".ndjson")
DEEPEST = 4  # levels around the table
FORMS = "write a list of records, one record a line, or columns of one length"


def as_csv(data: bytes, name: str) -> bytes:
    """Return the one table of a JSON text as CSV, every number as it is written. Raises UserError where there is none, or several."""
    try:
        table = _table(_parse(data.decode("utf-8-sig")), DEEPEST)
        if table is not None:
            return _written(table).encode()
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{name} must be JSON, was not ({reason(error)}); {FORMS}") from None
    raise UserError(f"{name} must hold one table, was none or several; {FORMS}")


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
    if columns := _columns(value):
        return columns
    if len(value) > 1 and all(isinstance(row, dict) and row and not _nests(row) for row in value.values()):  # rows by their times
        return [{"": key, **row} for key, row in value.items()]
    found = [table for part in value.values() if isinstance(part, dict | list) and (table := _table(part, depth - 1))]
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


def _nests(value: Any) -> bool:
    return any(isinstance(part, dict | list) for part in (value.values() if isinstance(value, dict) else value))


def _wraps(value: list[Any]) -> bool:
    """Say whether a list of one record holds a table further down."""
    return len(value) == 1 and _nests(value[0])


def _cell(value: Any) -> str:
    return "" if value is None or isinstance(value, dict | list) else str(value)
