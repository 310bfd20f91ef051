"""Declared knowledge: until when the maker of predictions knows the data. Which bars can be no evidence?

What our walk-forward fitted knows nothing of the bars that it predicts. Of everything else only its maker can say so: `knows_until` is
the latest moment of any data that went into it, the closes at which its labels ended and the data that it was chosen on included.
Predictions of bars that closed by then are `contaminated` (`Predictions.declare`).

A time means itself. A date means its whole day, as a model that was trained on the data of a day knows its last close; only in a table
whose closes are dates as well are both read alike.
"""

import re
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8, NS_PER_DAY, NS_PER_MINUTE
from research.errors import ModelError

if TYPE_CHECKING:
    import pandas as pd

    from research.data.zones import Reading

COLUMN = "knows_until"
FLAG = "knows_until (--knows-until)"
MONTH = re.compile(r"\d{4}([-/.]?\d{1,2})?")
HOUR = re.compile(r":|\dT\d|^\d{9,}")  # in a text that says more than a date


def parse_until(value: Any) -> int:
    """Return the moment, ns UTC, until which something knows the data; a date means its whole day, UTC. Raises UserError on other things.

    >>> until_text(parse_until("2021-06-30")), until_text(parse_until("2021-06-30 12:00"))
    ('2021-07-01T00:00Z', '2021-06-30T12:00Z')
    """
    from research.data.clock import parse_time

    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        raise ModelError(f"{FLAG} must be a date or a time, was empty; leave it out where nobody knows")
    moment, unit = parse_time(value, FLAG), np.datetime_data(value.dtype)[0] if isinstance(value, np.datetime64) else ""
    assert moment is not None
    if unit in ("Y", "M", "W") or (isinstance(value, str) and MONTH.fullmatch(value.strip())):
        raise ModelError(f"{FLAG} must be a date or a time, was {str(value)!r}, which is longer; name its last day")
    is_day = unit == "D" or (isinstance(value, date) and not isinstance(value, datetime))
    return moment + (NS_PER_DAY if is_day or (isinstance(value, str) and not HOUR.search(value)) else 0)


def until_text(moment: int) -> str:
    """Write a moment, ns UTC, so that `parse_until` reads the same one."""
    return f"{np.datetime_as_string(np.datetime64(moment, 'ns'), unit='ns' if moment % NS_PER_MINUTE else 'm')}Z"


def read_until(frame: "pd.DataFrame", keep: I8, close_time: I8, is_dated: bool, reading: "Reading") -> int | None:
    """Return until when the maker of a table of predictions knew the bars it holds; None where no column says so.

    Columns `knows_until` and `NAME_knows_until` say it row by row, as each fold of a walk-forward has its own; of several in a row the
    latest counts. The result is the last close that the maker of its own row knew, or the earliest of what they say where none knew any.
    keep: the rows that have a bar, closing at close_time; is_dated: their closes are written as dates. Raises UserError on an empty cell.
    """
    names = [name for name in frame.columns if says_until(name)]
    if not names:
        return None
    until = np.max([_moments(frame[name].iloc[keep], is_dated, reading) for name in names], axis=0)
    known = close_time[until >= close_time]
    return int(max(until.min(), known.max(initial=until.min())))


def says_until(name: str) -> bool:
    """Say whether a column is `knows_until` or `NAME_knows_until`, however the words are joined.

    >>> [says_until(name) for name in ("knows_until", "xgb_knows-until", "knows until", "knowsuntil", "knows")]
    [True, True, True, True, False]
    """
    from research.data.schema import plain

    return re.search("(^|_)knows_?until$", plain(name)) is not None


def are_dates(column: "pd.Series") -> bool:
    """Say whether times are written as dates alone."""
    return bool(len(column)) and bool(_dated(column).all())


def _dated(column: "pd.Series") -> NDArray[np.bool_]:
    """Say of each time [k] whether it is written as a date; an empty one is."""
    import pyarrow as pa

    values = pa.Array.from_pandas(column)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return np.full(len(column), pa.types.is_date(values.type))
    codes, texts = column.factorize(use_na_sentinel=False)
    return np.array([text != text or text is None or not HOUR.search(text) for text in texts], bool)[codes]


def _moments(column: "pd.Series", is_dated: bool, reading: "Reading") -> I8:
    import pyarrow as pa

    from research.data.clock import utc_ns

    name, values = f"column {column.name} of the predictions", pa.Array.from_pandas(column)
    moments = utc_ns(values, name, reading)
    if not is_dated and np.any(days := _dated(column)):  # the next midnight on the same clock
        moments[days] = utc_ns(pa.array((utc_ns(values.filter(pa.array(days)), name) + NS_PER_DAY).view("M8[ns]")), name, reading)
    return moments
