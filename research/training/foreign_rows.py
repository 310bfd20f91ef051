"""Rows of foreign predictions: the bar and the symbol that each speaks of."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8, Bars
from research.data import closes_of
from research.data.clock import iso, utc_ns
from research.data.funding import match, spelling
from research.data.zones import Reading
from research.errors import ModelError
from research.files import reason
from research.training.predictions import mismatch

if TYPE_CHECKING:
    import pandas as pd

TIME_NAMES = ("close_time", "timestamp", "open_time")


def place(frame: "pd.DataFrame", bars: Bars, notes: list[str], reading: Reading) -> tuple[I8, I8, I8]:
    """Find the bar and symbol of each row: (rows of bars, columns of bars, numbers of the frame's rows that have both)."""
    name = next((name for name in TIME_NAMES if name in frame.columns), None)
    if name is None or "symbol" not in frame.columns:
        held = ", ".join(str(name) or "one without a name" for name in frame.columns[:12])
        rule = "predictions must have the columns close_time (or timestamp, or open_time alone) and symbol"
        raise ModelError(f"{rule}, was {held}; name them, an index too")
    names = frame["symbol"].astype(str).str.strip()
    times, has_time = _times(frame, name, notes, reading, names)
    column = _columns_of(names, bars, notes)
    grid = bars.open_time if name == "open_time" else bars.close_time
    if name == "open_time":
        notes.append("rows are placed by open_time: each predicts at the close of the bar that opens then")
    else:
        _refuse_open_times(frame, times[has_time & (column >= 0)], name, bars)
        stamps = closes_of(times, grid, bars.interval)
        if moved := int(np.count_nonzero(stamps != times)):
            notes.append(f"{moved} values of {name} lie just before a close, as exchanges write it, and mean that close")
        times = stamps
    row = np.minimum(np.searchsorted(grid, times), max(bars.n - 1, 0))
    keep = np.flatnonzero(has_time & (grid[row] == times) & (column >= 0)) if bars.n else np.empty(0, np.int64)
    if len(keep) == 0:
        raise ModelError(mismatch(0, len(frame), np.unique(times[has_time]), tuple(dict.fromkeys(names)), bars))
    if len(keep) < len(frame):
        notes.append(f"{len(frame) - len(keep)} of {len(frame)} rows match no bar and were ignored")
    return row[keep].astype(np.int64), column[keep], keep


def _columns_of(names: "pd.Series", bars: Bars, notes: list[str]) -> I8:
    """Return the number of each row's symbol, -1 for none; another way of writing it is noted."""
    distinct, spelled = list(dict.fromkeys(names)), {spelling(symbol) for symbol in bars.symbols}
    if not any(name in bars.symbols or spelling(name) in spelled for name in distinct):
        return np.full(len(names), -1, np.int64)
    found, told = match(distinct, bars.symbols, "a prediction")
    notes += told
    return np.asarray(names.map(dict(zip(distinct, found.tolist()))).to_numpy(np.int64))


def _times(frame: "pd.DataFrame", name: str, notes: list[str], reading: Reading, names: "pd.Series") -> tuple[I8, NDArray[np.bool_]]:
    """Return ns UTC and which rows have a time at all. Raises UserError where none has, or one cannot be read."""
    import pandas as pd
    import pyarrow as pa

    given = frame[name]
    has_time = given.notna().to_numpy(bool)
    if not (pd.api.types.is_numeric_dtype(given) or pd.api.types.is_datetime64_any_dtype(given)):
        has_time = has_time & ~given.astype(str).str.strip().isin(["", "None", "NaT", "nan", "null"]).to_numpy(bool)
    if not has_time.any():
        raise ModelError(f"predictions must have a time in {name}, was empty in every row")
    try:
        read = pa.Array.from_pandas(given[has_time])
    except pa.ArrowException as error:
        raise ModelError(f"predictions must have times of one kind in {name}, was otherwise ({reason(error)})") from error
    times = np.full(len(frame), np.iinfo(np.int64).min)
    code = pd.factorize(names[has_time])[0].astype(np.int32)
    times[has_time] = utc_ns(read, f"column {name} of the predictions", reading, code)
    if reading.zone is not None and not reading.notes:
        reading.note(f"times of {name} are of {reading.zone}, as those of the candles (--time-zone)")
    notes += reading.notes
    return times, has_time


def _refuse_open_times(frame: "pd.DataFrame", times: I8, name: str, bars: Bars) -> None:
    """Raise UserError where times are those of the opens: each would vote a bar early, knowing the bar that it votes on.

    Where bars touch, an open is the close before it. What tells them apart are opens that no bar closes at (the first one, those after a
    pause) and closes that no bar opens at (the last one).
    """
    remedy = "add the bar's length, or name the column open_time"
    if "open_time" in frame.columns and (frame[name] == frame["open_time"]).any():
        raise ModelError(f"{name} of the predictions must be the close of each bar, was its open_time; {remedy}")
    opens, closes = np.setdiff1d(bars.open_time, bars.close_time), np.setdiff1d(bars.close_time, bars.open_time)
    only_opens = times[np.isin(times, opens)]
    if len(only_opens) and not np.isin(times, closes).any() and times.min() >= bars.open_time[0]:
        where = f"{iso(only_opens[0])} opens a bar and closes none"
        raise ModelError(f"{name} of the predictions must be the close of each bar, was its open ({where}); {remedy}")
