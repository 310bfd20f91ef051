"""Targets: what lies ahead of each cell as one number, which a label's thresholds turn into SELL, HOLD or BUY.

| unit       | the number                                                                                            |
| ---------- | ----------------------------------------------------------------------------------------------------- |
| return     | r = close[t + h] / close[t] - 1                                                                       |
| volatility | r in standard deviations of a return over h rows, by trailing volatility: r / (volatility_72h sqrt(h)) |
| rank       | where r stands among the symbols of its row: -0.5 the lowest, 0.5 the highest                          |
| barrier    | the level, in those standard deviations, that the price touches first within h rows; 0 where none     |

All of them are known h rows later, some barriers before. Without what they read a cell has none, NaN.
"""

import numpy as np

from qtcore.types import F8, I8, Bars

RETURN, VOLATILITY, RANK, BARRIER = UNITS = ("return", "volatility", "rank", "barrier")


def forward_return(close: F8, horizon: int) -> F8:
    """Return over the next `horizon` rows as a fraction, [n, S]; NaN without a valid close at exactly both ends.

    >>> forward_return(np.array([[100.0], [110.0], [121.0]]), 2)[:, 0].round(2)
    array([0.21,  nan,  nan])
    """
    out = np.full(close.shape, np.nan)
    if horizon < len(close):
        out[:-horizon] = close[horizon:] / close[:-horizon] - 1.0
    return out


def trailing_volatility(bars: Bars) -> F8:
    """Return the standard deviation of a return over one row, [n, S], from the past; 0.0 where it is unknown or nothing moved."""
    from qtcore.chain.price import VOLATILITY_NAME
    from qtcore.features import FeatureBank
    from qtcore.params import Params

    return FeatureBank(Params(), bars.symbols, bars.interval, (VOLATILITY_NAME,)).compute(bars)[VOLATILITY_NAME]


def rank_in_row(values: F8) -> F8:
    """Rank the values of each row in [-0.5, 0.5], equal ones in the middle, [n, S]; NaN where there is none.

    A row of fewer than five values has no ranks: among so few a rank is nearly a sign.

    >>> rank_in_row(np.array([[3.0, 1.0, 2.0, 5.0, 4.0, np.nan]])).tolist()
    [[0.0, -0.5, -0.25, 0.5, 0.25, nan]]
    """
    from scipy.stats import rankdata

    from qtcore.features.registry import LEAST

    n = np.count_nonzero(values == values, axis=1, keepdims=True)
    ranks = rankdata(values, axis=1, nan_policy="omit") if values.size else values
    out: F8 = (2.0 * ranks - (n + 1.0)) / (2.0 * np.maximum(n - 1.0, 1.0))  # exact numerators: a row and its reverse have opposite ranks
    return np.where(n >= LEAST, out, np.nan)


def first_barrier(bars: Bars, horizon: int, low: F8, high: F8) -> tuple[F8, I8]:
    """Return which price of each cell is touched first within `horizon` rows, and the row that decides it, [n, S] each.

    low, high [n, S]: the prices, NaN where a cell has none. 1.0 the upper, -1.0 the lower, 0.0 none; NaN where the rows end before, or the
    last one has no bar. Touched as a broker's stop is, by the extreme of a bar, by its open first. Where one bar touches both and its
    open decides nothing, a long and a short both count as stopped first (`spec` 10.6 b): 0.0, decided there.
    """
    n = len(low)
    side, end = np.full(low.shape, np.nan), np.broadcast_to(np.arange(n)[:, None] + horizon, low.shape).copy()
    waits = (low == low) & (high == high)
    for ahead in range(1, min(horizon, n - 1) + 1):
        rows, later = slice(0, n - ahead), slice(ahead, n)
        with np.errstate(invalid="ignore"):
            up, down = bars.high[later] >= high[rows], bars.low[later] <= low[rows]
            opens_up, opens_down = bars.open[later] >= high[rows], bars.open[later] <= low[rows]
        touched = waits[rows] & (up | down)
        first = np.where(opens_up, 1.0, np.where(opens_down, -1.0, up * 1.0 - down * 1.0))
        side[rows][touched] = first[touched]
        end[rows][touched] = np.broadcast_to(np.arange(ahead, n)[:, None], touched.shape)[touched]
        waits[rows] &= ~touched
    if horizon < n:
        none = waits[:-horizon] & (bars.close[horizon:] == bars.close[horizon:])
        side[:-horizon][none] = 0.0
    return side, end
