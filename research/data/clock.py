"""What time does a column, a text or a flag say? Everything ends as int64 ns UTC; a naive time is UTC."""

import re
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qtcore.types import I8, NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.errors import UserError

NS_PER_SECOND = 1_000_000_000
UNITS = {"s": NS_PER_SECOND, "m": NS_PER_MINUTE, "h": NS_PER_HOUR, "d": NS_PER_DAY, "w": 7 * NS_PER_DAY}
REMEDY = "use ISO 8601 in UTC (2024-01-31T13:00:00Z) or whole epoch s, ms, us or ns"
# Epoch integers by size: 1e11 s is the year 5138, 1e11 ms is 1973, so the ranges cannot be confused after 1973.
EPOCHS = ((10**11, "seconds", NS_PER_SECOND), (10**14, "milliseconds", 10**6), (10**17, "microseconds", 10**3), (2**63, "nanoseconds", 1))
ZONE = r":\d{2}(?:\.\d+)?\s*(?P<zone>Z|z|UTC|[+-]\d{2}(?::?\d{2})?)$"
FORMATS = ("%Y%m%d", "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y.%m.%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%Y%m%d %H%M%S")


def parse_interval(text: str | int) -> int:
    """Return the ns of `5m`, `1h`, `1d` or `1w`; an int is ns already. Raises UserError.

    >>> parse_interval("4h") // 3_600_000_000_000
    4
    """
    if isinstance(text, int) and text > 0:
        return text
    match = re.fullmatch(r"\s*(\d+)\s*([smhdw])[a-z]*\s*", str(text).lower())
    if not match or int(match[1]) == 0:
        raise UserError(f"interval must be a number and s, m, h, d or w such as 15m or 4h, was {text!r}")
    return int(match[1]) * UNITS[match[2]]


def interval_text(ns: int) -> str:
    """Write an interval the way `parse_interval` reads it.

    >>> interval_text(5_400_000_000_000)
    '90m'
    """
    for unit in ("w", "d", "h", "m", "s"):
        if ns % UNITS[unit] == 0:
            return f"{ns // UNITS[unit]}{unit}"
    return f"{ns}ns"


def iso(ns: int) -> str:
    """Write a time in UTC, as short as it goes: `2024-01-31 13:00`."""
    text = str(np.datetime64(int(ns), "ns")).replace("T", " ")
    return re.sub(r"(:00)?(\.0+)?$", "", text) if text.endswith("0") else text


def parse_time(value: Any, name: str = "time") -> int | None:
    """Return ns UTC of a text, a datetime, a date, a NumPy or pandas timestamp or an epoch int; None stays None. Raises UserError."""
    if value is None:
        return None
    if isinstance(value, str):
        return int(utc_ns(pa.array([value]), name)[0])
    if isinstance(value, int | np.integer):
        return int(utc_ns(pa.array([int(value)]), name)[0])
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = np.datetime64(int(value.timestamp() * 1e6) if not hasattr(value, "value") else value.value // 1000, "us")
    try:
        return int(np.datetime64(value, "ns").astype(np.int64))
    except (ValueError, TypeError):
        raise UserError(f"{name} must be a time, was {value!r}; {REMEDY}") from None


def utc_ns(column: pa.Array | pa.ChunkedArray, name: str) -> I8:
    """Return a time column as int64 ns UTC. Raises UserError on empty rows, mixed zones or units, and what is no time."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        first = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise UserError(f"{name} must have a time in every row, {column.null_count:,} are empty, the first is row {first + 1}")
    kind = column.type
    try:
        if pa.types.is_timestamp(kind):
            return _as_int(column.cast(pa.timestamp("ns", kind.tz)))
        if pa.types.is_date(kind):
            return _as_int(column.cast(pa.timestamp("ns")))
        if pa.types.is_integer(kind):
            return _from_epoch(column.cast(pa.int64()).to_numpy(), name)
        if pa.types.is_floating(kind):
            return _from_epoch(column.cast(pa.int64()).to_numpy(), name)  # a fraction does not survive a safe cast
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            return _from_text(pc.utf8_trim_whitespace(column.cast(pa.string())), name)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name} must hold times, was not so ({str(error).splitlines()[0][:120]}); {REMEDY}") from None
    raise UserError(f"{name} must hold times, was {kind}; {REMEDY}")


def _as_int(column: pa.Array) -> I8:
    return np.array(column.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)


def _from_epoch(values: np.ndarray, name: str) -> I8:
    if not len(values):
        return values.astype(np.int64)
    size = np.abs(values[values != 0]) if np.any(values) else np.array([0])
    low, high = int(size.min()), int(size.max())
    for limit, _, scale in EPOCHS:
        if high < limit:
            if low < 10**8 and scale == NS_PER_SECOND:
                raise UserError(f"{name} must hold epoch times, was {low} (1973 or before, or a date written as a number); {REMEDY}")
            if high > 10 * low and high // low >= 500:
                raise UserError(f"{name} must have one unit, was mixed (from {low} to {high}); {REMEDY}")
            return np.asarray(values, np.int64) * scale
    raise UserError(f"{name} must hold epoch times, was {high}; {REMEDY}")


def _from_text(column: pa.Array, name: str) -> I8:
    if len(column) and pc.all(pc.match_substring_regex(column, r"^\d{9,19}$")).as_py():
        return _from_epoch(column.cast(pa.int64()).to_numpy(), name)
    zones = pc.extract_regex(column, ZONE)
    if zones.null_count < len(column):
        found = {str(z) for z in pc.unique(zones.field("zone")).to_pylist()} - {"None", ""}
        offsets = {_offset(zone) for zone in found}
        if zones.null_count or len(offsets) > 1:
            kinds = sorted(found) + (["none"] if zones.null_count else [])
            raise UserError(f"{name} must have one time zone, was mixed ({', '.join(kinds[:5])}); convert it to UTC first")
        plain = pc.replace_substring_regex(column, r"\s*(Z|z|UTC|[+-]\d{2}(:?\d{2})?)$", "")
        return _naive(plain, name) - offsets.pop()
    return _naive(column, name)


def _naive(column: pa.Array, name: str) -> I8:
    try:
        return _as_int(column.cast(pa.timestamp("ns")))
    except pa.ArrowInvalid:
        for form in FORMATS:
            try:
                return _as_int(pc.strptime(column, form, "us").cast(pa.timestamp("ns")))
            except pa.ArrowInvalid:
                continue
    bad = next((text for text in column.to_pylist() if not _is_time(text)), "a mix of formats")
    raise UserError(f"{name} must hold times, was {bad!r}; {REMEDY}")


def _is_time(text: str) -> bool:
    try:
        pa.array([text]).cast(pa.timestamp("ns"))
    except pa.ArrowInvalid:
        return False
    return True


def _offset(zone: str) -> int:
    if zone in ("Z", "z", "UTC"):
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * NS_PER_HOUR + int(zone[3:].replace(":", "") or 0) * NS_PER_MINUTE)
