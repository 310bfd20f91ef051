"""What did an account earn beyond the market? A slow twin of the hedged block sums: numpy's least squares, sums by block."""

import math
from itertools import pairwise

import numpy as np


def hedge_rows(equity, first, factors, edges, length, unit):
    """(sums, t, alpha) of every account, by least squares from the factors alone."""
    return [hedge_row(row, start, factors, edges, length, unit) for row, start in zip(equity, first)]


def hedge_row(equity, first, factors, edges, length, unit):
    """Regress the returns on a constant and the factors; the weights are those whose mean with the returns is alpha."""
    values = [first, *equity]
    returns = np.array([after / before - 1.0 if before > 0.0 else 0.0 for before, after in pairwise(values)])
    n = len(returns)
    design = np.column_stack([np.ones(n), *factors])
    coefficients = np.linalg.lstsq(design, returns, rcond=None)[0]
    residual = returns - design @ coefficients
    if returns.var() == 0.0 or residual.var() < 1e-6 * returns.var():
        return [0] * (len(edges) - 1), math.nan, coefficients[0]
    weights = n * np.linalg.pinv(design)[0]
    hedged = weights * (returns - design[:, 1:] @ coefficients[1:])
    sums = np.array([hedged[a:b].sum() for a, b in pairwise(edges)])
    size = math.sqrt((sums**2).sum())
    units = [round(float(s / size * unit)) for s in sums]
    t = sum(units) / unit
    skew = float(((sums - sums.mean()) ** 3).mean() / sums.var() ** 1.5)
    middle = hedged - hedged.mean()
    lag = min(max(float((middle[1:] * middle[:-1]).sum() / (middle**2).sum()) + 1.0 / n, 0.0), 0.8)
    return units, min(t, hall_rule(t, skew, len(sums))) / lag_rule(lag, length), coefficients[0]


def hall_rule(t, skew, n):
    """Hall's cubic transform of the centred t value, and back."""
    x = t / math.sqrt(max(1.0 - t * t / n, 1e-9))
    y = x + skew * x**2 / (3 * math.sqrt(n)) + skew**2 * x**3 / (27 * n) + skew / (6 * math.sqrt(n))
    return y / math.sqrt(1 + y**2 / n)


def lag_rule(lag, length):
    """Deviation of the mean of an AR(1) over that which sums of `length` periods show."""
    long_run = (1 + lag) / (1 - lag)
    shown = 1 + 2 * sum((1 - k / length) * lag**k for k in range(1, length))
    return math.sqrt(long_run / shown)
