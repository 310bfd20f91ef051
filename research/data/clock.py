"""Times and intervals: what columns, texts and flags say, as int64 ns UTC; a naive time is UTC unless its source has a clock."""

import re
import time
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qtcore.types import I8, NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.data.stamps import NS_PER_SECOND, REMEDY, clock_times, from_numbers, from_texts, from_units, in_range
from research.data.zones import Reading, Walls, settle
from research.errors import DataError
from research.files import reason

UNITS = {"s": NS_PER_SECOND, "m": NS_PER_MINUTE, "h": NS_PER_HOUR, "d": NS_PER_DAY, "w": 7 * NS_PER_DAY}
WORDS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "wk", "week", "weeks"),
    "month": ("mo", "mon", "mth", "month", "months"),
}
UNIT_OF = {word: unit for unit, words in WORDS.items() for word in words}
LONGEST = 10 * 366 * NS_PER_DAY  # bar that can be asked for
FORMS = "a number and s, m, h, d, w or mo such as 15m, 4h or 1mo"


def parse_months(text: str | int) -> int:
    """Return the number of calendar months that `1M`, `1mo` or `3 months` says; 0 for every other interval. A small m is minutes.

    >>> parse_months("1M"), parse_months("3mo"), parse_months("1m")
    (1, 3, 0)
    """
    match = re.fullmatch(r"\s*(\d{1,9})\s*([A-Za-z]+)\s*", str(text))
    is_month = match is not None and (match[2] == "M" or UNIT_OF.get(match[2].lower()) == "month")
    return int(match[1]) if match and is_month else 0


def parse_interval(text: str | int) -> int:
    """Return the ns of `5m`, `1h`, `1d` or `1w`; an int is ns already. Raises UserError, also on calendar months, which have no one length.

    >>> parse_interval("4h") // 3_600_000_000_000
    4
    """
    if parse_months(text):
        raise DataError(f"interval must have one length here, was {text!r} (calendar months); use 4w or 30d")
    if isinstance(text, int | np.integer) and not isinstance(text, bool) and text > 0:
        length = int(text)
    else:
        match = re.fullmatch(r"\s*(\d{1,19})\s*([A-Za-z]+)\s*", str(text))
        unit = UNIT_OF.get(match[2].lower()) if match else None
        if not match or unit is None or int(match[1]) == 0:
            raise DataError(f"interval must be {FORMS}, was {text!r}")
        length = int(match[1]) * UNITS[unit]
    if length > LONGEST:
        raise DataError(f"interval must be 3660d at most, was {text!r}")
    return length


def parse_length(text: str | int) -> int:
    """Return the ns of the longest bar of an interval: `parse_interval`, and for calendar months the most days that they have.

    >>> parse_length("1M") // 86_400_000_000_000, parse_length("3mo") // 86_400_000_000_000
    (31, 92)
    """
    if not (months := parse_months(text)):
        return parse_interval(text)
    if months > 120:
        raise DataError(f"interval must be 120mo at most, was {text!r}")
    starts = np.arange("2000-01", "2024-01", dtype="M8[M]")
    return int(((starts + months).astype("M8[D]") - starts.astype("M8[D]")).max().astype(np.int64)) * NS_PER_DAY


def month_starts(times: I8, months: int, ahead: int = 0) -> I8:
    """Return the beginning of the span of so many calendar months that each time lies in, counted from January 1970, or `ahead` later."""
    number = times.view("M8[ns]").astype("M8[M]").astype(np.int64)
    start = number - number % months + ahead * months
    return start.astype("M8[M]").astype("M8[ns]").astype(np.int64)


def month_ends(open_time: I8, interval: int) -> I8 | None:
    """Return when bars of calendar months close, None where these are none: months begin at midnight UTC of a first day."""
    months = months_of(interval)
    if not months or np.any(month_starts(open_time, 1) != open_time):
        return None
    return months_later(open_time, months)


def months_of(interval: int) -> int:
    """Return how many calendar months an interval in ns stands for, 0 for none: 31 days are a month, 92 a quarter."""
    return next((n for n in (1, 2, 3, 6, 12) if parse_length(f"{n}mo") == interval), 0)


def months_later(times: I8, months: int) -> I8:
    """Return the beginning of the month that lies so many after that of each time."""
    return (times.view("M8[ns]").astype("M8[M]") + months).astype("M8[ns]").astype(np.int64)


def interval_text(ns: int) -> str:
    """Write an interval the way `parse_interval` reads it.

    >>> interval_text(5_400_000_000_000)
    '90m'
    """
    for unit in ("w", "d", "h", "m", "s"):
        if ns % UNITS[unit] == 0:
            return f"{ns // UNITS[unit]}{unit}"
    return f"{ns / NS_PER_SECOND:.12g}s"  # of early closes: 3599.999s


def iso(ns: int) -> str:
    """Write a time in UTC, as short as it goes: `2024-01-31 13:00`."""
    text = str(np.datetime64(int(ns), "ns")).replace("T", " ")
    return re.sub(r"(:00)?(\.0+)?$", "", text) if text.endswith("0") else text


def parse_time(value: Any, name: str = "time") -> int | None:
    """Return ns UTC of a text, a datetime, a date, a NumPy or pandas timestamp or an epoch; None stays None. Raises UserError."""
    if value is None:
        return None
    if isinstance(value, bool) or value is pd.NaT:
        raise DataError(f"{name} must be a time, was {value!r}; {REMEDY}")
    if isinstance(value, pd.Timestamp):
        zone = value.tz is not None
        value = (value.tz_convert("UTC").tz_localize(None) if zone else value).to_datetime64()
    if isinstance(value, np.datetime64) and not np.isnat(value):
        years = int(value.astype("M8[Y]").astype(np.int64)) + 1970
        if not 1900 <= years < 2200:
            raise DataError(f"{name} must lie in the years 1900 to 2199, was {years}; {REMEDY}")
        return int(value.astype("M8[ns]").astype(np.int64))
    if isinstance(value, str | int | float | np.integer | np.floating | datetime | date):
        try:
            return int(utc_ns(pa.array([value.item() if isinstance(value, np.generic) else value]), name)[0])
        except (pa.ArrowInvalid, OverflowError):
            pass
    raise DataError(f"{name} must be a time, was {value!r}; {REMEDY}")


def utc_ns(
    column: pa.Array | pa.ChunkedArray, name: str, reading: Reading | None = None, code: NDArray[np.int32] | None = None, hours: Any = None
) -> I8:
    """Return a time column [N] as int64 ns UTC: the one way in which this program reads times.

    reading: zone of naive times and beginning of dated days, UTC and midnight without one. code [N]: symbol of each row. hours: a second
    column, the time of day. Raises UserError on empty rows, on mixed zones or units, on what is no time, and on what lies outside the years
    1900 to 2199.
    """
    reading = reading or Reading()
    column = _flat(column)
    empty = column.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(column.type):
        empty = empty | pc.equal(pc.utf8_trim_whitespace(column), "").fill_null(True).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(column.type):
        empty = empty | pc.is_nan(column).fill_null(True).to_numpy(zero_copy_only=False)
    if np.any(empty):
        raise DataError(
            f"{name} must have a time in every row, {int(empty.sum()):,} are empty, the first is row {int(np.argmax(empty)) + 1}"
        )
    walls = _read(column, name)
    if hours is not None:
        walls = _with_hours(walls, _flat(hours), name, reading)
    reading.remember(name, walls.form)
    if walls.form.startswith(("YYYY", "year last", "year of two", "digits, ")):
        reading.note(f"{name} is read as dates ({walls.form})")
    return in_range(settle(_as_said(walls, reading, name), reading, name, code), name)


def _as_said(walls: Walls, reading: Reading, name: str) -> Walls:
    """Put naive times of day into the zone that their document says; that of its exchange is told alone, as they may be of another."""
    if walls.offset is not None or walls.zone or reading.zone or not np.any(walls.wall % NS_PER_DAY):
        return walls
    if reading.clock:
        reading.note(f"{name} is read in {reading.clock}, as the document says")
        return replace(walls, zone=reading.clock)
    if reading.place:
        reading.note(f"{name} is read as UTC; where it is of its exchange's clock say so with --time-zone {reading.place}")
    return walls


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    return column


def _read(column: pa.Array, name: str) -> Walls:
    """Return what the column says, by its type."""
    kind = column.type
    try:
        if pa.types.is_timestamp(kind):
            utc = from_units(_as_int(column.cast(pa.timestamp(kind.unit))), kind.unit, name)
            if kind.tz is None:
                return Walls(utc)
            wall = _as_int(pc.local_timestamp(column).cast(pa.timestamp("ns")))
            return Walls(wall, wall - utc)
        if pa.types.is_date(kind):
            return Walls(from_units(_as_int(column.cast(pa.timestamp("s"))), "s", name), form="dates")
        if isinstance(kind, pa.ExtensionType) and hasattr(kind, "freq"):
            periods = pd.PeriodIndex.from_ordinals(column.storage.to_numpy(), freq=kind.freq)
            return Walls(from_units(np.asarray(periods.start_time.as_unit("ns").asi8), "ns", name), form="periods")
        if pa.types.is_integer(kind):
            return from_numbers(column.cast(pa.int64()).to_numpy(), name, time.time_ns())
        if pa.types.is_floating(kind):
            walls = from_numbers(column.cast(pa.float64()).to_numpy(), name, time.time_ns())
            if kind != pa.float64() and np.any(walls.wall % NS_PER_DAY):
                raise DataError(f"{name} must hold times to the second, was float{kind.bit_width}, which rounds them to minutes; {REMEDY}")
            return walls
        if pa.types.is_string(kind):
            return from_texts(column, name, time.time_ns())
    except pa.ArrowInvalid as error:
        raise DataError(f"{name} must hold times, was not so ({reason(error)}); {REMEDY}") from None
    raise DataError(f"{name} must hold times, was {kind}; {REMEDY}")


def _with_hours(walls: Walls, hours: pa.Array, name: str, reading: Reading) -> Walls:
    """Join a column of dates and one of times of day; a second column that holds whole times stands alone. Raises UserError."""
    is_dated = not np.any(walls.wall % NS_PER_DAY)
    of_day = clock_times(hours, f"the time beside {name}") if not hours.null_count else None
    if of_day is not None and is_dated:
        reading.note(f"{name} is joined with the time of day beside it")
        return Walls(walls.wall + of_day, walls.offset, walls.zone, walls.form)
    if of_day is None and is_dated and not hours.null_count:
        reading.note(f"the time beside {name} is a whole time and is read alone")
        return _read(hours, f"the time beside {name}")
    raise DataError(f"{name} must be a date where a time of day stands beside it, was not so; keep one time column, named timestamp")


def _as_int(column: pa.Array) -> I8:
    return np.array(column.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64)
