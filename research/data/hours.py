"""Trading hours: in which hours of the week each symbol has bars, seen in the data themselves."""

import numpy as np
from numpy.typing import NDArray

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, Bars
from research.errors import DataError

HOURS = 168
USUAL = 0.5  # of the weeks in which a symbol traded at all
APART = 0.1  # of the hours of either symbol, by which two of the same market may differ
MONDAY = 3 * NS_PER_DAY  # 1970-01-01 was a Thursday


def trading_hours(bars: Bars) -> NDArray[np.bool_]:
    """Say in which hours of the week, from Monday UTC on, each symbol usually closes a bar, [168, S].

    >>> from research.data import load_bars
    >>> trading_hours(load_bars("simulated:random_walk?n_bars=1000&n_symbols=2")).sum(axis=0).tolist()
    [168, 168]
    """
    at = bars.close_time - 1 + MONDAY  # a bar that closes on the hour belongs to the hour before
    week, hour = at // (7 * NS_PER_DAY), at % (7 * NS_PER_DAY) // NS_PER_HOUR
    week -= week[0] if len(week) else 0
    out = np.zeros((HOURS, bars.close.shape[1]), bool)
    for s, column in enumerate(bars.close.T):
        rows = np.flatnonzero(column == column)
        weeks, n_each = len(np.unique(week[rows])), np.bincount(np.unique(week[rows] * HOURS + hour[rows]) % HOURS, minlength=HOURS)
        out[:, s] = n_each > USUAL * weeks if weeks else False
    return out


def check_same_hours(bars: Bars, sets: str) -> None:
    """Raise DataError where symbols that are compared with one another trade at other hours. sets: names of what compares them."""
    hours = trading_hours(bars)
    counts = hours.sum(axis=0)
    widest = int(np.argmax(counts))
    for s, name in enumerate(bars.symbols):
        either = np.count_nonzero(hours[:, s] | hours[:, widest])
        if counts[s] and np.count_nonzero(hours[:, s] != hours[:, widest]) > APART * either:
            was = f"{name} ({counts[s]} hours of the week) and {bars.symbols[widest]} ({counts[widest]})"
            raise DataError(
                f"features.sets may hold {sets} for symbols of the same trading hours, was with {was}; leave it out or give others"
            )
