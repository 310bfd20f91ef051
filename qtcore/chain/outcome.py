"""Trade outcomes: what a trade of every cell and side would have earned before costs, filled and closed as the broker does.

Only labels look forward: this is one. A trade that is decided at the close of bar t is filled at the open of bar t + 1, and leaves by its
stop, at the open after its horizon, or when the symbol has gone; no opinion, limit or other trade touches it.
"""

import numpy as np

from qtcore.broker import fill_rule, gap_rule, stop_fill_rule, stop_level_rule, stop_rule
from qtcore.choices import FillAt
from qtcore.jit import kernel
from qtcore.params import Params
from qtcore.types import F8, I8, Bars, InputError

SIDES = (-1.0, 1.0)  # rows of what is returned: a short, a long


@kernel
def outcome_line(open_, high, low, close, horizon, delist_after, stop_loss, slippage_rate, side, results, ends):
    """Fill results, ends [n] of one symbol and side (1.0 long, -1.0 short). open_ ... close [n]: prices, NaN at holes; horizon: bars."""
    n = len(close)
    for t in range(n):
        results[t], ends[t] = np.nan, -1
        entry = open_[t + 1] if t + 1 < n else np.nan
        if entry != entry:
            continue
        stop = stop_level_rule(side, fill_rule(side, entry, slippage_rate), stop_loss)
        last, last_close, is_due = t + 1, entry, False
        for bar in range(t + 1, n):
            price, leaves = np.nan, False
            if bar > t + 1 and (is_due or gap_rule(side, stop, open_[bar])):
                price = open_[bar]
                leaves = price == price
            if not leaves and stop_rule(side, stop, low[bar], high[bar]):
                price, leaves = stop_fill_rule(side, stop, open_[bar]), True
            elif not leaves and close[bar] != close[bar] and bar - last >= delist_after:
                price, leaves = last_close, True
            if leaves:
                results[t], ends[t] = side * (price / entry - 1.0), bar
                break
            if close[bar] == close[bar]:
                last, last_close = bar, close[bar]
            is_due = is_due or bar - t >= horizon


def outcomes(bars: Bars, params: Params) -> tuple[F8, I8]:
    """Return what a short and a long of every cell would have earned before costs, and the bar in which each would have ended.

    The first, [2, n, S]: fractions of the price that it was filled at, slippage aside, which moves the stop alone; NaN where the next
    bar is missing, or the trade has not ended by the last bar. The second, [2, n, S] int64: -1 where the first is NaN. params: the
    horizon, `broker.max_holding_bars`, the stop, `broker.delist_after` and the slippage. Raises InputError without a horizon, and where
    orders are filled at the close.

    >>> import numpy as np
    >>> rising = np.array([[100.0], [100.0], [110.0], [121.0]])
    >>> bars = Bars(np.arange(4), np.arange(1, 5), *[rising] * 5, symbols=("A",), interval=1)
    >>> outcomes(bars, Params().with_values({"broker.max_holding_bars": 1}))[0][1, :, 0].round(3).tolist()
    [0.1, 0.1, nan, nan]
    """
    broker = params.broker
    if broker.max_holding_bars < 1:
        raise InputError("broker.max_holding_bars must be 1 or more where trades are looked at one by one, was 0: a label's horizon")
    if broker.fill != FillAt.NEXT_OPEN:
        raise InputError(f"broker.fill must be next_open where trades are looked at one by one, was {broker.fill.name.lower()}")
    n, n_symbols = bars.close.shape
    results, ends = np.empty((2, n_symbols, n)), np.empty((2, n_symbols, n), np.int64)
    limits = broker.max_holding_bars, broker.delist_after, params.governor.stop_loss, broker.slippage_rate
    for s in range(n_symbols):
        prices = [np.ascontiguousarray(plane[:, s]) for plane in (bars.open, bars.high, bars.low, bars.close)]
        for k, side in enumerate(SIDES):
            outcome_line(*prices, *limits, side, results[k, s], ends[k, s])
    return np.ascontiguousarray(results.transpose(0, 2, 1)), np.ascontiguousarray(ends.transpose(0, 2, 1))
