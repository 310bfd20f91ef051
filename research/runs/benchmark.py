"""Benchmark: equal-weight buy and hold of the listed symbols, fully invested or at a given exposure.

`spec` D-96. A symbol is listed from its first to its last valid close. The share `exposure` of wealth is spread equally over the symbols
that are listed at this bar and the next; it is spread again whenever that set changes and left alone in between; the rest is cash. No
costs.
"""

import numpy as np
from numpy.typing import NDArray

from research.data.grid import filled


def buy_and_hold(close: NDArray[np.float64], exposure: float = 1.0) -> NDArray[np.float64]:
    """Wealth per bar [n] from closes [n, S] (NaN where there is no bar), 1.0 at the first."""
    n = len(close)
    known = ~np.isnan(close)
    first = np.where(known.any(axis=0), known.argmax(axis=0), n)
    last = np.where(known.any(axis=0), n - 1 - known[::-1].argmax(axis=0), -1)
    rows = np.arange(n)[:, None]
    held = (rows >= first) & (rows < last)  # over the step from this bar to the next
    prices = filled(close, np.nan)
    changes = np.flatnonzero(np.any(held[1:] != held[:-1], axis=1)) + 1
    wealth = np.ones(n)
    for start, stop in zip([0, *changes], [*changes, n - 1], strict=True):
        if held[start].any() and stop > start:
            block = prices[start : stop + 1, held[start]]
            growth = (block / block[0]).mean(axis=1)
            wealth[start : stop + 1] = wealth[start] * (1.0 - exposure + exposure * growth)
        else:
            wealth[start : stop + 1] = wealth[start]
    return wealth


def market_returns(close: NDArray[np.float64], ends: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return of the equal-weight market over each period [D], from closes [n, S]: the mean over the symbols that are listed when it begins.

    ends [D]: last bar of each period, ascending; the first begins at the first close. 0 where nothing is listed.
    """
    known = ~np.isnan(close)
    last = np.where(known.any(axis=0), len(close) - 1 - known[::-1].argmax(axis=0), -1)
    begins = np.append(0, ends[:-1])
    prices = filled(close, np.nan)
    is_listed = ~np.isnan(prices[begins]) & (last > begins[:, None])
    growth = np.where(is_listed, prices[ends] / prices[begins] - 1.0, 0.0)
    return growth.sum(axis=1) / np.maximum(is_listed.sum(axis=1), 1)


def drawdown(equity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fall from the highest value so far, a fraction in [0, 1], per bar."""
    peak = np.maximum.accumulate(equity)
    return (peak - equity) / peak


def bar_returns(equity: NDArray[np.float64]) -> NDArray[np.float64]:
    """Net return of each bar after the first, [n - 1]; 0 where nothing was left."""
    return growth(equity[1:], equity[:-1])


def growth(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Growth of an account from `before` to `after`, a fraction; 0 where nothing was left."""
    return np.divide(after, before, out=np.ones(len(before)), where=before != 0.0) - 1.0
