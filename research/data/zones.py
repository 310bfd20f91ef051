"""Time zones: the instant of a wall-clock time, daylight saving, and days that begin at another hour than midnight."""

import re
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.types import I8, NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.errors import ConfigError, DataError

NOON = 12 * NS_PER_HOUR


@dataclass
class Reading:
    """How one source is read, and what was assumed in doing so.

    zone: of naive times, None is UTC. day_start: of dated bars, in ns after midnight, and its zone. is_adjusted: prices are those of
    `Adj Close`. notes: a sentence on each assumption. forms: how its parts were written so far; None does not remember. What a document
    says around its table: symbol; made: when it was written, ns UTC, 0 unknown; clock: the zone of its times; place: that of its exchange.
    label: whether its times are opens.
    """

    zone: str | None = None
    day_start: tuple[int, str] | None = None
    is_adjusted: bool = False
    notes: list[str] = field(default_factory=list)
    forms: dict[str, str] | None = None
    symbol: str = ""
    made: int = 0
    clock: str = ""
    place: str = ""
    label: str = "open"

    def note(self, sentence: str) -> None:
        """Keep a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def remember(self, name: str, form: str) -> None:
        """Refuse a column that goes on in another form than it began: its parts must be read as the whole would be."""
        if self.forms is not None and self.forms.setdefault(name, form) != form:
            raise DataError(f"{name} must be written in one form, was {self.forms[name]}, then {form}; load_bars reads what has several")


@dataclass(frozen=True)
class Walls:
    """Times as they are written: ns of the wall clock [N], and how far it is ahead of UTC in ns, or in which zone; neither: naive."""

    wall: I8
    offset: I8 | int | None = None
    zone: str | None = None
    form: str = "timestamps"


def parse_reading(time_zone: str | None = None, day_start: str | None = None, adjusted: bool = False) -> Reading:
    """Return what `--time-zone`, `--day-start` and `--adjusted` ask for. Raises UserError.

    day_start: `17:00 America/New_York`; without a zone it is that of the times.

    >>> parse_reading("Europe/Berlin", "17:00 America/New_York").day_start
    (61200000000000, 'America/New_York')
    """
    if time_zone is not None:
        check_zone(time_zone, "time_zone (--time-zone)")
    if day_start is None:
        return Reading(time_zone, None, adjusted)
    match = re.fullmatch(r"\s*(\d{1,2}):(\d{2})(?:\s+(\S+))?\s*", str(day_start))
    if not match or int(match[1]) > 23 or int(match[2]) > 59:
        raise ConfigError(f"day_start (--day-start) must be a time and a zone such as '17:00 America/New_York', was {day_start!r}")
    zone = match[3] or time_zone or "UTC"
    check_zone(zone, "the zone of day_start (--day-start)")
    return Reading(time_zone, (int(match[1]) * NS_PER_HOUR + int(match[2]) * NS_PER_MINUTE, zone), adjusted)


def check_zone(zone: str, name: str) -> None:
    """Refuse what is no zone of the IANA database."""
    try:
        ZoneInfo(str(zone))
    except (KeyError, ValueError, OSError):
        raise DataError(f"{name} must be a name of the IANA database such as UTC or America/New_York, was {zone!r}") from None


def is_zone(zone: str) -> bool:
    """Say whether the IANA database has the name."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return False
    return True


def settle(walls: Walls, reading: Reading, name: str, code: NDArray[np.int32] | None = None) -> I8:
    """Return ns UTC of written times. code [N]: the symbol of each row. Raises UserError where the clock never showed them, or not once."""
    wall = walls.wall
    is_naive = walls.offset is None and walls.zone is None
    if reading.day_start is not None:
        return _days(wall, reading, name)
    if walls.offset is not None:
        utc = wall - walls.offset
    else:
        zone = walls.zone or reading.zone
        utc = wall if zone in (None, "UTC") else localise(wall, str(zone), reading, name, code)
    if reading.zone is not None and not is_naive:
        reading.note(f"{name} says its own zone; --time-zone {reading.zone} was not needed")
    return utc


def _days(wall: I8, reading: Reading, name: str) -> I8:
    """Dates become the beginnings of their days; a day that begins at noon or later begins on the eve."""
    assert reading.day_start is not None
    after, zone = reading.day_start
    if np.any(wall % NS_PER_DAY):
        first = np.datetime_as_string(wall[np.argmax(wall % NS_PER_DAY != 0)].view("M8[ns]"), unit="m").replace("T", " ")
        raise ConfigError(f"day_start (--day-start) must go with bars that are dated by day, was with {name} at {first}; leave it out")
    eve = after >= NOON
    hour = f"{after // NS_PER_HOUR:02d}:{after % NS_PER_HOUR // NS_PER_MINUTE:02d}"
    reading.note(f"the bar of a date opens at {hour} {zone} of {'the day before' if eve else 'that day'} (--day-start)")
    index = pd.DatetimeIndex((wall + after - (NS_PER_DAY if eve else 0)).view("M8[ns]"))
    return _ns(index.tz_localize(zone, ambiguous=np.zeros(len(index), bool), nonexistent="shift_forward"))


def localise(wall: I8, zone: str, reading: Reading, name: str, code: NDArray[np.int32] | None = None) -> I8:
    """Return ns UTC of wall times in a zone.

    An hour that the clock shows twice: where the rows of a symbol go through it twice, first the earlier, then the later; where they go
    through it once, the later. A date alone is the first moment of its day. Raises UserError for times that the clock skips, for hours
    shown twice in rows that are not sorted by time, and for any of them in a column that is read in parts.
    """
    index = pd.DatetimeIndex(wall.view("M8[ns]"))
    earlier = index.tz_localize(zone, ambiguous=np.ones(len(index), bool), nonexistent="NaT")
    skipped = np.asarray(earlier.isna())
    if np.any(skipped):
        if np.any(wall % NS_PER_DAY):
            first = np.datetime_as_string(wall[np.argmax(skipped)].view("M8[ns]"), unit="m").replace("T", " ")
            text = f"{name} must hold times that the clock of {zone} shows, was {first} ({int(skipped.sum()):,} times are skipped there)"
            raise DataError(f"{text}; choose another --time-zone")
        earlier = index.tz_localize(zone, ambiguous=np.ones(len(index), bool), nonexistent="shift_forward")
    later = index.tz_localize(zone, ambiguous=np.zeros(len(index), bool), nonexistent="shift_forward")
    first, second = _ns(earlier), _ns(later)
    twice = np.flatnonzero(first != second)
    if not len(twice):
        return first
    if reading.forms is not None:
        when = np.datetime_as_string(wall[twice[0]].view("M8[ns]"), unit="m").replace("T", " ")
        text = f"{name} must hold times that the clock of {zone} shows once to be read in parts, was {when}"
        raise DataError(f"{text}; load_bars reads it, or write times in UTC")
    out = second.copy()
    code = np.zeros(len(wall), np.int32) if code is None else code
    once = 0
    for s in np.unique(code[twice]):
        rows = np.flatnonzero(code == s)
        step = np.diff(wall[rows])
        if np.any(step < 0) and int((step < 0).sum()) * 2 > len(step):
            rows, step = rows[::-1], -step[::-1]
        at = np.flatnonzero(np.isin(rows, twice, assume_unique=True))
        if np.any(step < -2 * NS_PER_HOUR):
            raise DataError(f"{name} must be sorted by time where the clock of {zone} shows an hour twice, was not; sort the rows")
        for stretch in np.split(at, np.flatnonzero(np.diff(wall[rows[at]]) > NS_PER_DAY // 2) + 1):
            back = np.flatnonzero(np.diff(wall[rows[stretch]]) <= 0)
            if len(back) > 1:
                when = np.datetime_as_string(wall[rows[stretch[0]]].view("M8[ns]"), unit="m").replace("T", " ")
                raise DataError(f"{name} must go through an hour twice at most, was more often at {when} in {zone}; drop repeated rows")
            if len(back):
                head = rows[stretch[: back[0] + 1]]
                out[head] = first[head]
            else:
                once += len(stretch)
    if once:
        reading.note(f"{once:,} times of {name} lie in an hour that {zone} shows twice and are there once; read as the later")
    return out


def _ns(index: pd.DatetimeIndex) -> I8:
    return np.asarray(index.tz_convert("UTC").tz_localize(None).as_unit("ns").asi8, np.int64)
