"""Naive targets: what lies ahead of one cell, found by walking there."""

import math

import numpy as np


def forward_return(bars, t, s, horizon):
    """Return from close to close, NaN without both."""
    return bars.close[t + horizon, s] / bars.close[t, s] - 1.0 if t + horizon < bars.n else math.nan


def rank_in_row(values):
    """Rank each value of one row by counting who is below."""
    known = [v for v in values if v == v]
    if len(known) < 5:
        return [math.nan] * len(values)
    out = []
    for v in values:
        below, same = sum(u < v for u in known), sum(u == v for u in known)
        out.append((below + 0.5 * (same - 1)) / (len(known) - 1) - 0.5 if v == v else math.nan)
    return out


def first_barrier(bars, t, s, horizon, low, high):
    """Walk bar by bar until a barrier is touched: (1, -1, 0 or NaN, row that decides)."""
    for row in range(t + 1, min(t + horizon, bars.n - 1) + 1):
        if bars.open[row, s] >= high:
            return 1.0, row
        if bars.open[row, s] <= low:
            return -1.0, row
        is_up, is_down = bars.high[row, s] >= high, bars.low[row, s] <= low
        if is_up and is_down:
            return 0.0, row
        if is_up or is_down:
            return (1.0 if is_up else -1.0), row
    is_known = t + horizon < bars.n and np.isfinite(bars.close[t + horizon, s]) and low == low and high == high
    return (0.0 if is_known else math.nan), t + horizon
