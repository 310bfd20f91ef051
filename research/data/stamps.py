"""Formats of written times, read as wall-clock times: ISO 8601, epochs, dates in digits, and the forms of exports."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from qtcore.types import F8, I8, NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.data.zones import Walls, is_zone
from research.errors import DataError

NS_PER_SECOND = 1_000_000_000
REMEDY = "use ISO 8601 in UTC (2024-01-31T13:00:00Z) or whole epoch s, ms, us or ns"
FIRST, LAST = (int(np.datetime64(year, "ns").astype(np.int64)) for year in ("1900", "2200"))  # every time lies in [FIRST, LAST)
# Epoch integers by size: 1e11 s is the year 5138, 1e11 ms is 1973, so the ranges cannot be confused after 1973.
EPOCHS = ((10**11, "seconds", NS_PER_SECOND), (10**14, "milliseconds", 10**6), (10**17, "microseconds", 10**3), (2**63, "nanoseconds", 1))
# Dates in digits, by their number: what follows YYYYMMDD.
DIGITS = {8: "", 10: "HH", 12: "HHMM", 14: "HHMMSS", 17: "HHMMSSmmm"}
# Dates in digits whose year does not stand first, or has two digits, by their number.
OTHER_DIGITS = {10: ("yymmddHHMM",), 12: ("yymmddHHMMSS", "ddmmYYYYHHMM", "mmddYYYYHHMM"), 14: ("ddmmYYYYHHMMSS", "mmddYYYYHHMMSS")}
# Counts of 100 ns that would be ns of the years 1973 to 1992: what they are called, and the second since 1970 at which they begin.
OTHER_COUNTS = (("since the year 1, .NET", -62_135_596_800), ("since 1601, Windows", -11_644_473_600))
NUMBER = r"^\d{8,20}(\.\d*)?$|^\d(\.\d+)?[eE]\+?\d{1,2}$"
PERIOD = r"^\d{4}-\d{2}-\d{2}/\d{4}-\d{2}-\d{2}$"  # a week as pandas writes it, its last day included
ZONE = r"(?::\d{2}|\d{2}[.,]\d+|[Tt ]\d{4,6})\s*(?P<zone>Z|z|(?:UTC|GMT)(?:\s*[+-]\d{1,2}(?::?\d{2})?)?|[+-]\d{2}(?::?\d{2})?)$"
NAMED = r"\s(?P<zone>[A-Z][A-Za-z_]+/[A-Za-z_/+-]+\d*)$"
WEEKDAY = r"^(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*,? +)?"
COLONS = r"(?P<H>\d{1,2}):(?P<M>\d{2})(?::(?P<S>\d{2})(?:[.,](?P<f>\d{1,9}))?)?(?: *(?P<ap>[AaPp])\.?[Mm]\.?)?"
DENSE = r"(?P<h>\d{2})(?P<n>\d{2})(?:(?P<s>\d{2})(?P<g>\d{3})?)?"
HALF = r"(?P<k>\d{1,2})[- ]?(?P<q>[AaPp])[Mm]"  # 12-AM
TIME = rf"(?:(?:[Tt_,]|\s)+(?:{COLONS}|{DENSE}|{HALF}))?\s*$"
DATES = {
    "year first": r"^(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})",
    "digits": r"^(?P<y>\d{4})(?P<m>\d{2})(?P<d>\d{2})",
    "year last": r"^(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})[-/.](?P<y>\d{4})",
    "day, month by name": WEEKDAY + r"(?P<d>\d{1,2})[- /.]?(?P<mon>[A-Za-z]{3,9})[-., /]*(?P<y>\d{4})",
    "year and month": r"^(?P<y>\d{4})-(?P<m>\d{2})$",
    "month by name, day": WEEKDAY + r"(?P<mon>[A-Za-z]{3,9})\.?[ -]+(?P<d>\d{1,2}),? +(?P<y>\d{4})",
    "year of two digits": r"^(?P<a>\d{1,2})(?P<sep>[-/.])(?P<b>\d{1,2})[-/.](?P<c>\d{2})",
    "year of two digits, month by name": WEEKDAY + r"(?P<d>\d{1,2})[- /.]?(?P<mon>[A-Za-z]{3,9})[-., /]*(?P<c>\d{2})",
}
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")


def in_range(ns: I8, name: str) -> I8:
    """Return the times. Raises UserError for one outside the years that every time must lie in."""
    bad = (ns < FIRST) | (ns >= LAST)
    if np.any(bad):
        raise DataError(_range_text(name, str(np.datetime64(int(ns[np.argmax(bad)]), "ns"))[:19].replace("T", " ")))
    return ns


def _range_text(name: str, value: object) -> str:
    return f"{name} must lie in the years 1900 to 2199, was {value}; {REMEDY}"


def from_units(values: I8, unit: str, name: str) -> I8:
    """Return counts of `s`, `ms`, `us` or `ns` since 1970 as ns. Raises UserError for one out of range, before anything overflows."""
    scale = {"s": NS_PER_SECOND, "ms": 10**6, "us": 10**3, "ns": 1}[unit]
    bad = (values < FIRST // scale) | (values >= LAST // scale)
    if np.any(bad):
        raise DataError(_range_text(name, str(values[np.argmax(bad)].view(f"M8[{unit}]"))[:19].replace("T", " ")))
    return np.asarray(values * scale, np.int64)


def from_numbers(values: I8 | F8, name: str, now: int) -> Walls:
    """Read epochs, or dates written in digits: 8, 10, 12, 14 or 17 of them. now: ns UTC, the end of what an epoch of 10 digits may be.

    Ten digits that are a date with an hour would be an epoch in seconds of the years 2030 to 2039. Raises UserError.
    """
    if not len(values):
        return Walls(np.empty(0, np.int64), 0, form="epochs")
    is_float = values.dtype.kind == "f"
    if is_float and not np.all(np.abs(values) < 2.0**63):
        raise DataError(f"{name} must hold epoch times, was {values[np.argmax(~(np.abs(values) < 2.0**63))]}; {REMEDY}")
    whole = np.asarray(np.floor(values) if is_float else values, np.int64)
    has_fraction = bool(np.any(whole != values))
    dated = None if has_fraction else _in_digits(whole, name, now)
    if dated is not None:
        return dated
    _check_no_dates(whole, name, now)
    _check_no_other(whole, name, now)
    return _fractions(np.asarray(values, np.float64), name) if has_fraction else _epochs(whole, name)


def _check_no_dates(values: I8, name: str, now: int) -> None:
    """Refuse epochs among which are dates in digits: of numbers in their range one in 200 is a date by chance. Raises UserError."""
    for n, rest in DIGITS.items():
        here = (values >= 1900 * 10 ** (n - 4)) & (values < 2200 * 10 ** (n - 4))
        if not np.any(here) or (n == 10 and int(values.max()) * NS_PER_SECOND <= now):
            continue
        _, bad = _fields(values[here], n)
        if 2 * int(bad.sum()) <= int(here.sum()) and not np.all(here):
            dates, rest_of = int(values[np.argmax(here)]), int(values[np.argmin(here)])
            raise DataError(f"{name} must hold dates or epochs, was {dates} (YYYYMMDD{rest}) and {rest_of}; {REMEDY}")


def _check_no_other(values: I8, name: str, now: int) -> None:
    """Refuse numbers that would be epochs at odd times, but are all dates in digits of another order, or counts since another year.

    Candles open at whole minutes; what does not may be trades, of which hardly a row is a date by chance. Raises UserError.
    """
    low, high = int(values.min()), int(values.max())
    scale = next((scale for limit, _, scale in EPOCHS if high < limit), 1)
    if low <= 0 or not np.any(values % max(NS_PER_MINUTE // scale, 1)):
        return
    distinct, fits = np.unique(values), list[str]()
    for n, orders in OTHER_DIGITS.items():
        if low >= 10 ** (n - 2) and high < 10**n and len(distinct) > 2:
            walls = {order: _fields_in(distinct, order) for order in orders}
            fits += [order.upper() for order, (wall, bad) in walls.items() if not np.any(bad) and wall.max() <= now + NS_PER_DAY]
    if fits:
        raise DataError(f"{name} must hold epochs, was {int(values[0])} and the like, which may be dates ({' or '.join(fits)}); {REMEDY}")
    for since, start in OTHER_COUNTS if scale == 1 else ():
        if low // 10**7 + start >= 0 and (high // 10**7 + start) * NS_PER_SECOND <= now:
            raise DataError(f"{name} must hold epochs, was {low}, which may count 100 ns {since}; {REMEDY}")


def _fields_in(values: I8, order: str) -> tuple[I8, np.ndarray]:
    """Return ns of dates whose digits stand in `order`, and which of them no calendar has."""
    field, rest = dict.fromkeys("YmdHMS", np.zeros(len(values), np.int64)), values
    for match in reversed(list(re.finditer(r"(\w)\1+", order))):
        base = 10 ** len(match[0])
        field[match[1]], rest = rest % base, rest // base
    field["Y"] = _full_years(field["y"]) if "y" in field else field["Y"]
    return compose([field[name] for name in "YmdHMS"], np.zeros(len(values), np.int64))


def _fields(values: I8, n: int) -> tuple[I8, np.ndarray]:
    """Return ns of dates in `n` digits, and which of them no calendar has."""
    day = values // 10 ** (n - 8)
    clock = (values % 10 ** (n - 8)) * 10 ** (17 - n)  # HHMMSSmmm
    fields = [day // 10_000, day // 100 % 100, day % 100, clock // 10**7, clock // 10**5 % 100, clock // 1000 % 100]
    return compose(fields, clock % 1000 * 10**6)


def _epochs(values: I8, name: str) -> Walls:
    size = np.abs(values[values != 0]) if np.any(values) else np.array([0])
    low, high = int(size.min()), int(size.max())
    unit, scale = next(((unit, scale) for limit, unit, scale in EPOCHS if high < limit), ("nanoseconds", 1))
    if high > 10 * low and high // low >= 500:
        raise DataError(f"{name} must have one unit, was mixed (from {low} to {high}); {REMEDY}")
    if low * scale < 10**8 * NS_PER_SECOND:
        raise DataError(f"{name} must hold epoch times, was {low} (1973 or before, or a date written as a number); {REMEDY}")
    bad = (values < FIRST // scale) | (values >= LAST // scale)
    if np.any(bad):
        raise DataError(_range_text(name, f"{int(values[np.argmax(bad)])} (as epoch {unit})"))
    return Walls(values * scale, 0, form=f"epoch {unit}")


def _fractions(values: F8, name: str) -> Walls:
    """Epochs in seconds or milliseconds with a fraction: a float64 holds them to the microsecond."""
    high = float(np.abs(values).max())
    per_us = 1e6 if high < 10**11 else 1e3
    if high >= 10**14 or float(np.abs(values[values != 0]).min()) < 10**8:
        raise DataError(f"{name} must hold epoch times, was {float(values[np.argmax(values % 1.0 != 0)])!r}; {REMEDY}")
    return Walls(from_units(np.rint(values * per_us).astype(np.int64), "us", name), 0, form=f"epochs with a fraction, {high < 10**11}")


def _in_digits(values: I8, name: str, now: int) -> Walls | None:
    """Read dates written in digits; None where the numbers are epochs."""
    n = len(str(int(values.max()))) if values.min() > 0 else 0
    if n not in DIGITS or len(str(int(values.min()))) != n:
        return None
    low, high = 1900 * 10 ** (n - 4), 2200 * 10 ** (n - 4)
    if values.min() < low or values.max() >= high:
        return None
    wall, bad = _fields(values, n)
    form = f"YYYYMMDD{DIGITS[n]}"
    if n == 10 and np.any(bad):
        return None
    if np.any(bad):
        raise DataError(f"{name} must hold dates, was {int(values[np.argmax(bad)])} (read as {form}); {REMEDY}")
    if n == 10 and int(values.max()) * NS_PER_SECOND <= now:
        raise DataError(f"{name} must be clear, was {int(values[0])}, an epoch and a date with an hour; {REMEDY}")
    return Walls(wall, form=form)


def compose(fields: list[I8], fraction: I8) -> tuple[I8, np.ndarray]:
    """Return ns of year, month, day, hour, minute, second [N] and ns after it, and which of them no calendar has."""
    year, month, day, hour, minute, second = fields
    bad = (year < 1900) | (year >= 2200) | (month < 1) | (month > 12) | (day < 1) | (hour > 23) | (minute > 59) | (second > 59)
    months = np.where(bad, 0, (year - 1970) * 12 + month - 1).astype("M8[M]")
    first = months.astype("M8[D]").astype(np.int64)
    bad |= day > (months + 1).astype("M8[D]").astype(np.int64) - first
    days = np.where(bad, 0, first + day - 1)
    return days * NS_PER_DAY + hour * NS_PER_HOUR + minute * NS_PER_MINUTE + second * NS_PER_SECOND + fraction, bad


def from_texts(column: pa.Array, name: str, now: int) -> Walls:
    """Read a column of texts, every one written in the same way. Raises UserError."""
    column = pc.utf8_trim_whitespace(column.cast(pa.string()))
    if len(column) and pc.all(pc.match_substring_regex(column, PERIOD)).as_py():
        column = pc.replace_substring_regex(column, "/.*$", "")
    if len(column) and pc.all(pc.match_substring_regex(column, NUMBER)).as_py():
        return _from_number_texts(column, name, now)
    zones = pc.extract_regex(column, ZONE)
    if zones.null_count < len(column):
        if zones.null_count:
            kinds = sorted(str(zone) for zone in pc.unique(zones.field("zone")).to_pylist() if zone)
            raise DataError(f"{name} must have one time zone, was mixed ({', '.join([*kinds[:4], 'none'])}); convert it to UTC first")
        written = zones.field("zone").dictionary_encode()
        offsets = np.array([_offset(zone) for zone in written.dictionary.to_pylist()], np.int64)
        plain = pc.replace_substring_regex(column, r"\s*(Z|z|(UTC|GMT)(\s*[+-]\d{1,2}(:?\d{2})?)?|[+-]\d{2}(:?\d{2})?)$", "")
        wall, form = _walls(plain, name, now)
        return Walls(wall, offsets[written.indices.to_numpy()], form=form + " with an offset")
    names = pc.extract_regex(column, NAMED)
    if names.null_count < len(column):
        found = [zone for zone in pc.unique(names.field("zone")).to_pylist() if zone]
        if names.null_count or len(found) > 1 or not is_zone(found[0]):
            raise DataError(f"{name} must have one time zone, was {', '.join(map(str, found[:3]))}; convert it to UTC first")
        wall, form = _walls(pc.replace_substring_regex(column, r"\s+\S+$", ""), name, now)
        return Walls(wall, zone=found[0], form=f"{form} in {found[0]}")
    wall, form = _walls(column, name, now)
    return Walls(wall, form=form)


def _from_number_texts(column: pa.Array, name: str, now: int) -> Walls:
    if pc.all(pc.match_substring_regex(column, r"^\d{8,19}(\.0*)?$")).as_py():
        return from_numbers(pc.replace_substring_regex(column, r"\..*$", "").cast(pa.int64()).to_numpy(), name, now)
    mantissa = pc.extract_regex(column, r"^\d\.?(?P<digits>\d*)[eE]\+?(?P<power>\d+)$").drop_null()
    power = mantissa.field("power").cast(pa.int64()).to_numpy(zero_copy_only=False)
    if np.any(pc.utf8_length(mantissa.field("digits")).to_numpy(zero_copy_only=False) < np.where(power % 3, 8, 9)):
        raise DataError(f"{name} must be written to the second, was rounded ({column[0].as_py()}); write whole epochs or ISO 8601")
    return from_numbers(column.cast(pa.float64()).to_numpy(), name, now)


def _walls(column: pa.Array, name: str, now: int) -> tuple[I8, str]:
    """Return ns of the wall clock of texts without a zone, and the form they have."""
    try:
        seconds = column.cast(pa.timestamp("s")) if len(column) == 0 else column.cast(pa.timestamp("ns"))
        return in_range(np.array(seconds.cast(pa.int64()).to_numpy(zero_copy_only=False), np.int64), name), "ISO 8601"
    except pa.ArrowInvalid:
        pass
    known = None
    column = pc.replace_substring_regex(column, r"^(\d{8})-(\d{2}:\d{2}:\d{2})$", r"\1 \2")  # Interactive Brokers
    for form, date in DATES.items():
        fields = pc.extract_regex(column, date + TIME)
        if fields.null_count == 0:
            return _compose_texts(column, fields, form, name, now)
        known = fields.is_valid() if known is None else pc.or_(known, fields.is_valid())
    numbers = pc.match_substring_regex(column, NUMBER)
    if pc.any(numbers).as_py():
        known = pc.or_(known, numbers)
    unread = pc.index(known, False).as_py()
    raise DataError(f"{name} must hold times, was {column[unread].as_py() if unread >= 0 else 'a mix of formats'!r}; {REMEDY}")


def _compose_texts(column: pa.Array, fields: pa.StructArray, form: str, name: str, now: int) -> tuple[I8, str]:
    have = {fields.type.field(i).name for i in range(fields.type.num_fields)}

    def number(*names: str) -> I8:
        """Return the group that is there; 0 where none is."""
        out = np.zeros(len(column), np.int64)
        for group in names:
            if group in have:
                texts = fields.field(group)
                out += pc.if_else(pc.equal(texts, ""), "0", texts).cast(pa.int64()).to_numpy(zero_copy_only=False)
        return out

    year, hour, bad = number("y"), number("H", "h", "k"), np.zeros(len(column), bool)
    if "mon" in have:
        month, bad = _month_numbers(fields.field("mon"))
        day = number("d")
        year = _full_years(number("c")) if "c" in have else year
    elif "c" in have:
        year, month, day, order = _day_month_and_year([number("a"), number("b"), number("c")], fields.field("sep"), column, name, now)
        form = f"{form}, {order}"
    elif "a" in have:
        month, day, order = _day_and_month(number("a"), number("b"), fields.field("sep"), column, name)
        form = f"{form}, {order}"
    else:
        month, day = number("m"), number("d") if "d" in have else np.ones(len(column), np.int64)
    half = pc.utf8_lower(pc.binary_join_element_wise(fields.field("ap"), fields.field("q"), "")).to_numpy(zero_copy_only=False)
    is_half = half != ""
    bad |= is_half & ((hour < 1) | (hour > 12))
    hour = np.where(is_half, hour % 12 + np.where(half == "p", 12, 0), hour)
    fraction = pc.utf8_rpad(pc.binary_join_element_wise(fields.field("f"), fields.field("g"), ""), 9, "0").cast(pa.int64())
    wall, wrong = compose([year, month, day, hour, number("M", "n"), number("S", "s")], fraction.to_numpy(zero_copy_only=False))
    bad |= wrong
    if np.any(bad):
        raise DataError(f"{name} must hold times, was {column[int(np.argmax(bad))].as_py()!r} (no such date, read {form}); {REMEDY}")
    return wall, form


def _month_numbers(words: pa.Array) -> tuple[I8, np.ndarray]:
    written = words.dictionary_encode()
    number = []
    for word in written.dictionary.to_pylist():
        fits = [i for i, month in enumerate(MONTHS, 1) if month.startswith(word.lower())]
        number.append(fits[0] if fits else 0)
    months = np.array(number, np.int64)[written.indices.to_numpy()]
    return months, months == 0


def _day_and_month(a: I8, b: I8, separator: pa.Array, column: pa.Array, name: str) -> tuple[I8, I8, str]:
    """Return month and day of `a/b/year`. With dots the day is first; else one of them beyond 12 must tell, in the column as a whole."""
    day_first, month_first = bool(np.any(a > 12)), bool(np.any(b > 12))
    if not day_first and not month_first and pc.all(pc.equal(separator, ".")).as_py():
        day_first = True
    example = column[0].as_py()
    if day_first and month_first:
        first, second = column[int(np.argmax(a > 12))].as_py(), column[int(np.argmax(b > 12))].as_py()
        raise DataError(f"{name} must have day and month in one order, was {first!r} and {second!r}; write YYYY-MM-DD")
    if not day_first and not month_first:
        raise DataError(f"{name} must say which is the day and which the month, was {example!r} and the like; write YYYY-MM-DD")
    return (b, a, "day first") if day_first else (a, b, "month first")


def _full_years(year: I8) -> I8:
    """Return years of two digits in full, those of 1970 to 2069."""
    return year + np.where(year < 70, 2000, 1900)


def _day_month_and_year(parts: list[I8], separator: pa.Array, column: pa.Array, name: str, now: int) -> tuple[I8, I8, I8, str]:
    """Return year, month and day of three numbers of two digits, and their order, which the column as a whole must prove.

    An order is out where a row would be no date or lie in the future, and where it stretches the rows over more than a hundred times the
    span of another: days that would be years. Dots stand behind the day, or the year, never behind the month alone. Raises UserError.
    """
    orders = {"day first": (2, 1, 0), "month first": (2, 0, 1), "year first": (0, 1, 2)}
    if pc.all(pc.equal(separator, ".")).as_py():
        del orders["month first"]
    spans, nothing = {}, np.zeros(len(column), np.int64)
    for order, (y, m, d) in orders.items():
        day, bad = compose([_full_years(parts[y]), parts[m], parts[d], nothing, nothing, nothing], nothing)
        if not np.any(bad) and day.max() <= now + NS_PER_DAY:
            spans[order] = int(np.ptp(day))
    left = [order for order, span in spans.items() if span <= 100 * min(spans.values())]
    if len(left) != 1:
        which = "which is the day, which the month and which the year" if left else "dates with a year of two digits in one order"
        text = f"{name} must {'say' if left else 'have'} {which}, was {column[0].as_py()!r} and the like"
        raise DataError(f"{text}; write YYYY-MM-DD")
    y, m, d = orders[left[0]]
    return _full_years(parts[y]), parts[m], parts[d], left[0]


def clock_times(column: pa.Array, name: str) -> I8 | None:
    """Return ns after midnight of a column of times of day (`09:30`, `093000`, `930`, time32, time64), None where it holds none."""
    kind = column.type
    if pa.types.is_time(kind):
        return np.asarray(column.cast(pa.time64("ns")).cast(pa.int64()).to_numpy(), np.int64)
    if pa.types.is_integer(kind):
        column = column.cast(pa.string())
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        return None
    column = pc.utf8_trim_whitespace(column.cast(pa.string()))
    fields = pc.extract_regex(column, rf"^{COLONS}$")
    if fields.null_count:
        if not pc.all(pc.match_substring_regex(column, r"^\d{1,6}$")).as_py():
            return None
        number = column.cast(pa.int64()).to_numpy()
        is_six = pc.max(pc.utf8_length(column)).as_py() > 4
        hour, minute, second = (
            (number // 10_000, number // 100 % 100, number % 100) if is_six else (number // 100, number % 100, 0 * number)
        )
        if not is_six and pc.min(pc.utf8_length(column)).as_py() < 3 and number.max() < 100 and number.max() > 0:
            return None  # minutes, seconds or hours
        ns, bad = hour * NS_PER_HOUR + minute * NS_PER_MINUTE + second * NS_PER_SECOND, (hour > 23) | (minute > 59) | (second > 59)
    else:
        dated = pc.binary_join_element_wise(pa.array(["1970-01-01"] * len(column), pa.string()), column, " ")
        ns, bad = (
            _compose_texts(dated, pc.extract_regex(dated, DATES["year first"] + TIME), "time", name, 0)[0],
            np.zeros(len(column), bool),
        )
    if np.any(bad):
        raise DataError(f"{name} must hold times of day, was {column[int(np.argmax(bad))].as_py()!r}; use HH:MM:SS")
    return ns


def _offset(zone: str) -> int:
    """Return how far a written zone is ahead of UTC, in ns."""
    match = re.search(r"([+-])(\d{1,2}):?(\d{2})?$", zone)
    if match is None:
        return 0
    return (-1 if match[1] == "-" else 1) * (int(match[2]) * NS_PER_HOUR + int(match[3] or 0) * NS_PER_MINUTE)
